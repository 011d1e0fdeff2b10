"""Load DiT weights from files with Meta's names, from diffusers folders, and from this tool's own files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import BackboneHints, build as build_config, sides_of
from ..errors import CheckpointError, ConfigError
from ..storage import Weights, load_strictly
from .dit import DiT, positions
from .dit_names import from_diffusers
from .dit_sizes import DiTConfig, named_config, standard_heads
from .folder_configs import passed_over
from .repa_names import as_dit, left_out
from .training_args import model_said, size_said

_TYPICAL = {
    "x_embedder.proj.weight",
    "t_embedder.mlp.0.weight",
    "blocks.0.attn.qkv.weight",
    "final_layer.linear.weight",
}
_FACTOR = 8  # pixels per latent pixel, for DiTs that denoise latents
DIFFUSERS_CLASS = "DiTTransformer2DModel"
_DIFFUSERS_FIELDS = (
    *("num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "num_layers", "dropout"),
    *("norm_num_groups", "attention_bias", "sample_size", "patch_size", "activation_fn", "num_embeds_ada_norm"),
    *("upcast_attention", "norm_type", "norm_elementwise_affine", "norm_eps"),
)
_DIFFUSERS_FIXED = {"norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate", "attention_bias": True}


def recognises(weights: Weights) -> bool:
    """Whether these weights belong to a DiT."""
    if weights.config is not None:
        return weights.config.get("_class_name") == DIFFUSERS_CLASS
    return weights.tensors.keys() >= _TYPICAL


def build(weights: Weights, hints: BackboneHints) -> DiT:
    """Load the DiT that ``weights`` hold: strictly, in float32, in eval mode.

    Raises:
        CheckpointError: the tensors do not fit, or neither their shapes nor ``hints`` tell a size.
    """
    config, tensors = read(weights, hints)
    with torch.device("meta"):
        backbone = DiT(config)
    load_strictly(backbone, tensors, source=weights.path)
    backbone.remarks = passed_over(weights.config or {}, _DIFFUSERS_FIELDS, source=weights.path)
    backbone.remarks += left_out(weights.tensors)
    backbone.pos_embed.requires_grad_(False)
    return backbone.eval()


def build_empty(sizes: dict[str, Any], *, source: object = "these sizes") -> DiT:
    """Build a DiT of these sizes without its weights. Raises CheckpointError if the sizes are invalid."""
    return DiT(_config(sizes, source))


def read_sizes(weights: Weights, hints: BackboneHints) -> dict[str, Any]:
    """The sizes of the DiT that ``weights`` hold. Raises as :func:`build` does."""
    return read(weights, hints)[0].model_dump()


def read(weights: Weights, hints: BackboneHints) -> tuple[DiTConfig, dict[str, Tensor]]:
    """The sizes of the DiT that ``weights`` hold and its tensors under Meta's names. Raises as :func:`build` does."""
    if weights.config is not None:
        return _read_folder(weights, hints)
    tensors = as_dit(weights.tensors)
    if hints.sizes is not None:
        config = _config(hints.sizes, weights.path)
    else:
        config = infer_config(tensors, _with_said(weights, hints), source=weights.path)
    if "pos_embed" in tensors:
        return config, tensors
    return config, {**tensors, "pos_embed": _positions(config)}


def _with_said(weights: Weights, hints: BackboneHints) -> BackboneHints:
    """``hints``, completed by what the training options of a checkpoint say where it fits its tensors."""
    table, kernel = weights.tensors.get("y_embedder.embedding_table.weight"), weights.tensors["x_embedder.proj.weight"]
    classes, named = size_said(weights, "num_classes"), named_config(model_said(weights) or "")
    fits = classes is not None and table is not None and table.shape[0] in (classes, classes + 1)
    heads = size_said(weights, "num_heads") or (named and named.hidden_size == len(kernel) and named.num_heads) or None
    said = {
        "num_classes": classes if fits else None,
        "num_heads": heads,
        "image_size": size_said(weights, "image_size", "resolution"),
    }
    missing = {key: value for key, value in said.items() if value and getattr(hints, key) is None}
    return hints.model_copy(update=missing)


def _positions(config: DiTConfig) -> Tensor:
    with torch.device("cpu"):
        return positions(config)[None]


def infer_config(tensors: Mapping[str, Tensor], hints: BackboneHints, *, source: Path) -> DiTConfig:
    """Infer the sizes of a DiT from the shapes of its tensors; ``hints`` give what the shapes cannot tell.

    Raises:
        CheckpointError: the shapes contradict each other or ``hints``, or leave a size open that no hint gives.
    """
    kernel = tensors["x_embedder.proj.weight"].shape
    if len(kernel) != 4:
        raise CheckpointError(f"{source}: its x_embedder.proj.weight {tuple(kernel)} is not a 2-D convolution")
    width, channels, patch, _ = kernel
    out_channels, rest = divmod(tensors["final_layer.linear.weight"].shape[0], patch * patch)
    if rest or out_channels not in (channels, 2 * channels):
        raise CheckpointError(f"{source}: its output has {out_channels} channels, but its input has {channels}")
    table = tensors.get("y_embedder.embedding_table.weight")
    num_classes, null_row = _read_classes(0 if table is None else table.shape[0], hints.num_classes, source)
    sizes = {
        "input_size": _read_side(tensors, hints, patch=patch, channels=channels, source=source),
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
    """The config of these sizes. Raises CheckpointError, with the file they come from, if they are invalid."""
    try:
        return build_config(DiTConfig, **sizes)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{source} has sizes that no DiT has: {error}") from error


def _read_side(tensors: Mapping[str, Tensor], hints: BackboneHints, *, patch: int, channels: int, source: Path) -> int:
    """The side of the latents, from the table of positions, or without one from the size of the images."""
    table = tensors.get("pos_embed")
    if table is None and hints.image_size is not None:
        height, width = sides_of(hints.image_size)
        if height != width:
            raise ConfigError(f"--image-size {hints.image_size}: a DiT makes square images only")
        return height // (1 if channels in (1, 3) else _FACTOR)
    if table is None or table.dim() != 3:
        found = "none" if table is None else tuple(table.shape)
        raise CheckpointError(
            f"{source}: expected a table of positions pos_embed (1, N, D), found {found}",
            hint="Give the size of its images with --image-size." if table is None else None,
        )
    grid = math.isqrt(table.shape[1])
    if grid * grid != table.shape[1]:
        raise CheckpointError(
            f"{source}: its {table.shape[1]} positions form no square; only square images are supported"
        )
    return grid * patch


def _read_heads(width: int, hint: int | None, source: Path) -> int:
    """The number of attention heads, from the hint or from the width of a public size."""
    heads = hint or standard_heads(width)
    if heads is None:
        raise CheckpointError(
            f"{source}: no public size of DiT has width {width}, and shapes do not tell the number of attention heads",
            hint="Give it with --num-heads.",
        )
    if width % heads:
        raise CheckpointError(f"--num-heads {heads} does not divide the width {width} of {source}")
    return heads


def _read_classes(rows: int, hint: int | None, source: Path) -> tuple[int, bool]:
    """The number of classes, and whether there is a null row, from the number of rows of the class table."""
    if hint is not None:
        if rows not in (hint, hint + 1):
            raise CheckpointError(f"{source}: its class table has {rows} rows, which cannot hold {hint} classes")
        return hint, rows == hint + 1 and hint > 0
    if rows in (0, 1):  # no table, or a single class, as for FFHQ
        return rows, False
    if rows == 1001:  # the classes of ImageNet and the null class
        return 1000, True
    raise CheckpointError(
        f"{source}: its class table has {rows} rows: {rows - 1} classes and a null row, or {rows} classes without one",
        hint=f"Say which with --num-classes {rows - 1} or --num-classes {rows}.",
    )


def _arithmetic(hints: BackboneHints, *, norm_eps: float) -> dict[str, float]:
    """The two constants that differ if diffusers trained the DiT, and not Meta's code; else none."""
    return {"freq_shift": 1.0, "mlp_norm_eps": norm_eps} if hints.trained_with == "diffusers" else {}


def _read_folder(weights: Weights, hints: BackboneHints) -> tuple[DiTConfig, dict[str, Tensor]]:
    """As :func:`read`, for a diffusers folder."""
    given: dict[str, Any] = weights.config or {}
    unknown = [f"{key}={given.get(key)!r}" for key, value in _DIFFUSERS_FIXED.items() if given.get(key, value) != value]
    if unknown:
        raise CheckpointError(f"{weights.path}: a DiT with {', '.join(unknown)} is not supported")
    if hints.trained_with is None:
        raise CheckpointError(
            f"{weights.path}: a diffusers DiT folder does not say which code trained it, and the two compute timesteps "
            "differently (under the wrong arithmetic, outputs are off by up to 100 %)",
            hint="Give --trained-with meta for a conversion of Meta's weights, such as facebook/DiT-XL-2-256, or "
            "--trained-with diffusers.",
        )
    tensors = from_diffusers(weights.tensors, source=weights.path)
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
        raise CheckpointError(f"{weights.path}: its config.json has no usable {error}") from error
    config = _config({**sizes, **_arithmetic(hints, norm_eps=given.get("norm_eps", 1e-5))}, weights.path)
    tensors.setdefault("pos_embed", _positions(config))
    return config, tensors
