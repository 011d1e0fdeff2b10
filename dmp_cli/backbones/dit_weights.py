"""DiT weights from the containers people have: Meta-style names, diffusers folders, and this tool's own files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import BackboneHints, build as build_config
from ..errors import CheckpointError, ConfigError
from ..storage import Weights, load_strictly
from .dit import DiT, DiTConfig, positions, standard_heads

_MARKS = {"x_embedder.proj.weight", "t_embedder.mlp.0.weight", "blocks.0.attn.qkv.weight", "final_layer.linear.weight"}
_DIFFUSERS_CLASS = "DiTTransformer2DModel"
_DIFFUSERS_MUST = {"norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate", "attention_bias": True}

_TOP = {
    "pos_embed.proj": "x_embedder.proj",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
}
_SHARED = {
    "norm1.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "norm1.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "norm1.emb.class_embedder.embedding_table": "y_embedder.embedding_table",
}
_BLOCK = {
    "norm1.linear": "adaLN_modulation.1",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
_QKV = ("attn1.to_q", "attn1.to_k", "attn1.to_v")


def recognises(weights: Weights) -> bool:
    """Whether these weights are a DiT's."""
    if weights.config is not None:
        return weights.config.get("_class_name") == _DIFFUSERS_CLASS
    return weights.tensors.keys() >= _MARKS


def build(weights: Weights, hints: BackboneHints) -> DiT:
    """The DiT that ``weights`` hold, strictly loaded, float32, in eval mode.

    Raises:
        CheckpointError: tensors that do not fit, or sizes that shapes cannot tell and no hint gives.
    """
    config, tensors = read(weights, hints)
    with torch.device("meta"):
        backbone = DiT(config)
    load_strictly(backbone, tensors, source=weights.path)
    backbone.pos_embed.requires_grad_(False)
    return backbone.eval()


def build_empty(sizes: dict[str, Any], *, source: object = "these sizes") -> DiT:
    """A DiT of these sizes without its weights. Raises CheckpointError for sizes it cannot have."""
    return DiT(_config(sizes, source))


def read_sizes(weights: Weights, hints: BackboneHints) -> dict[str, Any]:
    """The sizes of the DiT that ``weights`` hold. Raises as :func:`build` does."""
    return read(weights, hints)[0].model_dump()


def read(weights: Weights, hints: BackboneHints) -> tuple[DiTConfig, dict[str, Tensor]]:
    """The sizes of the DiT that ``weights`` hold, and its tensors under Meta's names. Raises as :func:`build` does."""
    if weights.config is not None:
        return _from_diffusers(weights, hints)
    if hints.sizes is not None:
        return _config(hints.sizes, weights.path), weights.tensors
    return infer_config(weights.tensors, hints, source=weights.path), weights.tensors


def infer_config(tensors: Mapping[str, Tensor], hints: BackboneHints, *, source: Path) -> DiTConfig:
    """Sizes from the shapes of Meta-style tensors; ``hints`` fill in what shapes cannot tell."""
    kernel = tensors["x_embedder.proj.weight"].shape
    if len(kernel) != 4:
        raise CheckpointError(f"{source}: its x_embedder.proj.weight {tuple(kernel)} is no 2-D convolution")
    width, channels, patch, _ = kernel
    out_channels, rest = divmod(tensors["final_layer.linear.weight"].shape[0], patch * patch)
    if rest or out_channels not in (channels, 2 * channels):
        raise CheckpointError(f"{source}: its output has {out_channels} channels for {channels} at the input")
    table = tensors.get("y_embedder.embedding_table.weight")
    num_classes, null_row = _read_classes(0 if table is None else table.shape[0], hints.num_classes, source)
    sizes = {
        "input_size": _read_grid(tensors, source) * patch,
        "patch_size": patch,
        "in_channels": channels,
        "hidden_size": width,
        "depth": 1 + max(int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))),
        "num_heads": _read_heads(width, hints.num_heads, source),
        "mlp_size": tensors["blocks.0.mlp.fc1.weight"].shape[0] if "blocks.0.mlp.fc1.weight" in tensors else 4 * width,
        "num_classes": num_classes,
        "null_row": null_row,
        "learn_sigma": out_channels == 2 * channels,
    }
    return _config({**sizes, **_arithmetic(hints, norm_eps=1e-5)}, source)


def _config(sizes: Mapping[str, Any], source: object) -> DiTConfig:
    """The config of these sizes, or an error that names the file they come from."""
    try:
        return build_config(DiTConfig, **sizes)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{source} has sizes that no DiT has: {error}") from error


def _read_grid(tensors: Mapping[str, Tensor], source: Path) -> int:
    table = tensors.get("pos_embed")
    if table is None or table.dim() != 3:
        found = "none" if table is None else tuple(table.shape)
        raise CheckpointError(f"{source}: expected a table of positions pos_embed (1, N, D), found {found}")
    grid = math.isqrt(table.shape[1])
    if grid * grid != table.shape[1]:
        raise CheckpointError(f"{source}: its {table.shape[1]} positions form no square; only square images are known")
    return grid


def _read_heads(width: int, hint: int | None, source: Path) -> int:
    heads = hint or standard_heads(width)
    if heads is None:
        raise CheckpointError(
            f"{source}: a DiT of width {width} is none of the public sizes, and shapes do not tell its attention heads",
            hint="Give them with --num-heads.",
        )
    if width % heads:
        raise CheckpointError(f"--num-heads {heads} does not divide the width {width} of {source}")
    return heads


def _read_classes(rows: int, hint: int | None, source: Path) -> tuple[int, bool]:
    """(number of classes, null row or not) from the rows of the class table."""
    if hint is not None:
        if rows not in (hint, hint + 1):
            raise CheckpointError(f"{source}: its class table has {rows} rows, which cannot hold {hint} classes")
        return hint, rows == hint + 1 and hint > 0
    if rows in (0, 1):  # no table, or one class as for FFHQ
        return rows, False
    if rows == 1001:  # ImageNet and the null class
        return 1000, True
    raise CheckpointError(
        f"{source}: its class table has {rows} rows: {rows - 1} classes and a null row, or {rows} classes without one",
        hint=f"Say which with --num-classes {rows - 1} or --num-classes {rows}.",
    )


def _arithmetic(hints: BackboneHints, *, norm_eps: float) -> dict[str, float]:
    """diffusers trains DiTs with another timestep frequency and norm epsilon than Meta's code does."""
    return {"freq_shift": 1.0, "mlp_norm_eps": norm_eps} if hints.trained_with == "diffusers" else {}


def _from_diffusers(weights: Weights, hints: BackboneHints) -> tuple[DiTConfig, dict[str, Tensor]]:
    given: dict[str, Any] = weights.config or {}
    unknown = [f"{key}={given.get(key)!r}" for key, value in _DIFFUSERS_MUST.items() if given.get(key, value) != value]
    if unknown:
        raise CheckpointError(f"{weights.path}: a DiT with {', '.join(unknown)} is not known")
    if hints.trained_with is None:
        raise CheckpointError(
            f"{weights.path}: a diffusers DiT folder does not say which code trained it, and the two compute timesteps "
            "differently (the outputs of one under the other's arithmetic are off by up to 100 %)",
            hint="Give --trained-with meta for a conversion of Meta's weights, such as facebook/DiT-XL-2-256, or "
            "--trained-with diffusers.",
        )
    tensors = _rename(weights.tensors, weights.path)
    try:
        width = given["num_attention_heads"] * given["attention_head_dim"]
        sizes = {
            "input_size": given["sample_size"],
            "patch_size": given["patch_size"],
            "in_channels": given["in_channels"],
            "hidden_size": width,
            "depth": given["num_layers"],
            "num_heads": given["num_attention_heads"],
            "mlp_size": 4 * width,
            "num_classes": given["num_embeds_ada_norm"],
            "null_row": True,
            "learn_sigma": (given.get("out_channels") or given["in_channels"]) == 2 * given["in_channels"],
        }
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{weights.path}: its config.json lacks a usable {error}") from error
    config = _config({**sizes, **_arithmetic(hints, norm_eps=given.get("norm_eps", 1e-5))}, weights.path)
    with torch.device("cpu"):
        tensors.setdefault("pos_embed", positions(config)[None])
    return config, tensors


def _rename(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """diffusers' names -> Meta's. Names that are not known stay, so that strict loading lists them."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        block = re.match(r"transformer_blocks\.(\d+)\.(.+)", stem)
        if stem in _TOP:
            renamed[f"{_TOP[stem]}.{kind}"] = tensor
        elif block and block[2] in _SHARED:
            _share(renamed, f"{_SHARED[block[2]]}.{kind}", tensor, source)
        elif block and block[2] in _BLOCK:
            renamed[f"blocks.{block[1]}.{_BLOCK[block[2]]}.{kind}"] = tensor
        elif block and block[2] in _QKV:
            target = f"blocks.{block[1]}.attn.qkv.{kind}"
            if target not in renamed:
                renamed |= _join(tensors, [f"transformer_blocks.{block[1]}.{part}.{kind}" for part in _QKV], target)
        else:
            renamed[name] = tensor
    return renamed


def _join(tensors: Mapping[str, Tensor], names: list[str], target: str) -> dict[str, Tensor]:
    """Query, key and value layers as one; as they are, for strict loading to list, where they do not go together."""
    parts = {name: tensors[name] for name in names if name in tensors}
    whole = len(parts) == len(names) and len({tensor.shape for tensor in parts.values()}) == 1
    return {target: torch.cat(list(parts.values()))} if whole else parts


def _share(renamed: dict[str, Tensor], name: str, tensor: Tensor, source: Path) -> None:
    # diffusers keeps a copy of the embedders in every block; a DiT has one.
    if not torch.equal(renamed.setdefault(name, tensor), tensor):
        raise CheckpointError(f"{source}: its blocks carry different copies of {name}; a DiT shares one")
