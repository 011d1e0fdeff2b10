"""A DiT as others keep it: a folder of diffusers, or a ``.pt`` with Meta's names."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..storage import safetensors_bytes, staged_folder, write_bytes, write_json
from .base import Backbone
from .dit import DiT, positions

_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_TOP = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_SHARED = {  # a copy in every block
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}


def write_diffusers(path: Path, backbone: Backbone) -> list[str]:
    """Write the folder that ``DiTTransformer2DModel.from_pretrained`` loads; what to know of it, in words.

    Raises:
        ConfigError: no DiT, or one that diffusers cannot express: without a null class, or of another MLP width; or
            ``path`` holds other things.
    """
    if not isinstance(backbone, DiT):
        raise ConfigError(f"a {backbone.family} backbone cannot be converted; DiTs can")
    _check(backbone)
    config, tensors = _config_of(backbone), _rename(backbone)
    if path.exists():  # to be replaced: nothing but a folder of these two files is
        _remove(path)
    with staged_folder(path) as folder:
        write_json(folder / _CONFIG, config)
        write_bytes(folder / _WEIGHTS, safetensors_bytes(tensors, {"format": "pt"}))
    if backbone.config.freq_shift == 1:
        return []
    return [
        "this backbone was trained with Meta's timestep frequencies; diffusers' DiTTransformer2DModel computes others, "
        "and so other outputs. Read it back with --trained-with meta."
    ]


def write_meta(path: Path, backbone: Backbone) -> None:
    """Write a ``.pt`` that holds the bare state dict under Meta's names. Raises ConfigError for what is no DiT."""
    if not isinstance(backbone, DiT):
        raise ConfigError(f"a {backbone.family} backbone cannot be converted; DiTs can")
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}, buffer)
    write_bytes(path, buffer.getvalue())


def _remove(path: Path) -> None:
    if not path.is_dir() or any(inner.name not in (_CONFIG, _WEIGHTS) for inner in path.iterdir()):
        raise ConfigError(f"{path} holds other things than a converted DiT", hint="Give another place with -o.")
    for inner in path.iterdir():
        inner.unlink()
    path.rmdir()


def _check(backbone: DiT) -> None:
    config = backbone.config
    if not config.null_row:
        raise ConfigError(
            f"diffusers cannot express this DiT: it has {config.num_classes} classes and no null class",
            hint="Convert it to a .pt instead.",
        )
    if config.mlp_size != 4 * config.hidden_size:
        raise ConfigError("diffusers cannot express this DiT: its MLP is not four times as wide as its blocks")
    if not torch.allclose(backbone.pos_embed.cpu(), positions(config)[None], atol=1e-6):
        raise ConfigError("diffusers cannot express this DiT: its positions are not the usual ones")


def _config_of(backbone: DiT) -> dict[str, Any]:
    config = backbone.config
    return {
        "_class_name": "DiTTransformer2DModel",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "in_channels": config.in_channels,
        "norm_elementwise_affine": False,
        "norm_eps": config.mlp_norm_eps,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": config.num_heads,
        "num_embeds_ada_norm": config.num_classes,
        "num_layers": config.depth,
        "out_channels": backbone.out_channels,
        "patch_size": config.patch_size,
        "sample_size": config.input_size,
        "upcast_attention": False,
    }


def _rename(backbone: DiT) -> dict[str, Tensor]:
    """Meta's names -> diffusers'."""
    found: dict[str, Tensor] = {}
    for name, tensor in backbone.state_dict().items():
        stem, _, kind = name.rpartition(".")
        if stem in _TOP:
            found[f"{_TOP[stem]}.{kind}"] = tensor
        elif stem in _SHARED:
            for block in range(backbone.config.depth):
                found[f"transformer_blocks.{block}.{_SHARED[stem]}.{kind}"] = tensor.clone()
        elif stem.startswith("blocks."):
            _, block_index, inner = stem.split(".", 2)
            place = f"transformer_blocks.{block_index}"
            if inner == "attn.qkv":
                for part, own in zip(("to_q", "to_k", "to_v"), tensor.chunk(3), strict=True):
                    found[f"{place}.attn1.{part}.{kind}"] = own
            else:
                found[f"{place}.{_BLOCK[inner]}.{kind}"] = tensor
    return found
