"""The text encoder inside an original Stable Diffusion file, and a tokenizer for it, which no such file holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..storage import load_strictly, read_weights, reason_of, transformers_for
from .original_sd import CLIP, OPEN_CLIP
from .sources import VOCABULARIES, cached_folder

# Where the hub's local cache may hold the tokenizer: repositories, and the folder inside.
_TOKENIZERS = {
    "clip": (
        ("openai/clip-vit-large-patch14", ""),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer"),
        ("CompVis/stable-diffusion-v1-4", "tokenizer"),
    ),
    "open_clip": (
        ("stabilityai/stable-diffusion-2", "tokenizer"),
        ("stabilityai/stable-diffusion-2-base", "tokenizer"),
        ("stabilityai/stable-diffusion-2-1", "tokenizer"),
        ("stabilityai/stable-diffusion-2-1-base", "tokenizer"),
    ),
}


def load_original_text(file: Path, tokenizer_folder: Path | None) -> tuple[Any, Any]:
    """The tokenizer and the text encoder of an original Stable Diffusion, in float32.

    ``tokenizer_folder`` is a pipeline's folder, or that of a tokenizer; None looks into the hub's local cache.

    Raises:
        CheckpointError: the file holds no text encoder, or no tokenizer is found.
        ConfigError: transformers is not installed.
    """
    tensors = read_weights(file).tensors
    kind = "open_clip" if any(name.startswith(OPEN_CLIP) for name in tensors) else "clip"
    with transformers_for("a backbone that reads text needs") as transformers:
        tokenizer = _load_tokenizer(transformers, kind, tokenizer_folder, file)
        model = _build(transformers, tensors, kind)
    # before version 5, transformers put this prefix before CLIP's names
    old = any(name.startswith("text_model.") for name in model.state_dict())
    own = {name if old else name.removeprefix("text_model."): tensor for name, tensor in _convert(model, tensors, kind)}
    load_strictly(model, {name: own[name] for name in own if "position_ids" not in name}, source=file)
    return tokenizer, model


def _load_tokenizer(transformers: Any, kind: str, folder: Path | None, file: Path) -> Any:
    places = [cached_folder(*home) for home in _TOKENIZERS[kind]] if folder is None else [folder / "tokenizer", folder]
    # Without its vocabulary, transformers would make an empty tokenizer and say nothing.
    place = next((p for p in places if p is not None and any((p / name).exists() for name in VOCABULARIES)), None)
    hint = "Give the folder of a pipeline of the same Stable Diffusion, or of its tokenizer, with --text."
    if place is None:
        where = "and none is in the hub's local cache" if folder is None else f"and there is none in {folder}"
        raise CheckpointError(f"{file} holds no tokenizer, {where}", hint=hint)
    try:
        return transformers.AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(f"cannot read the tokenizer in {place}: {reason_of(error)}", hint=hint) from error


def _build(transformers: Any, tensors: Mapping[str, Tensor], kind: str) -> Any:
    """An empty text encoder of the sizes that the shapes tell."""
    if kind == "clip":
        table, places = (
            tensors[f"{CLIP}text_model.embeddings.{name}_embedding.weight"] for name in ("token", "position")
        )
        layer = CLIP + "text_model.encoder.layers.{}.mlp.fc1.weight"
    else:
        table, places = tensors[OPEN_CLIP + "token_embedding.weight"], tensors[OPEN_CLIP + "positional_embedding"]
        layer = OPEN_CLIP + "transformer.resblocks.{}.mlp.c_fc.weight"
    layers = next(number for number in range(1000) if layer.format(number) not in tensors)
    config = transformers.CLIPTextConfig(
        vocab_size=table.shape[0],
        hidden_size=table.shape[1],
        intermediate_size=len(tensors[layer.format(0)]),
        max_position_embeddings=len(places),
        num_hidden_layers=layers - (kind == "open_clip"),  # 2.x reads the states before the last layer
        num_attention_heads=max(1, table.shape[1] // 64),
        hidden_act="quick_gelu" if kind == "clip" else "gelu",
    )
    return transformers.CLIPTextModel(config)


def _convert(model: Any, tensors: Mapping[str, Tensor], kind: str) -> list[tuple[str, Tensor]]:
    """Names of transformers and tensors, by the conversion of diffusers."""
    from diffusers.loaders import single_file_utils

    if kind == "clip":
        return list(single_file_utils.convert_ldm_clip_checkpoint(dict(tensors)).items())
    last = f"{OPEN_CLIP}transformer.resblocks.{model.config.num_hidden_layers}."
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(last)}
    found = single_file_utils.convert_open_clip_checkpoint(model, kept, prefix=OPEN_CLIP)
    return [(name, tensor) for name, tensor in found.items() if not name.startswith("text_projection")]
