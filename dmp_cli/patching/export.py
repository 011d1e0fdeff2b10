"""Bake a patch for a sampler's timesteps: a table of what is added to each block at each step, without a gate.

Any code can use the table: at step s it adds ``weights.i[s] * prompts.i``, that is sigma(G([t; i])) * p_i of Eq. 3, or
``mixtures.i[s]``, to the input of block i. Letters: S steps, N prompts of a block, D width; H, W, C of a feature map.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..config import PatchRecord, TableRecord
from ..errors import ConfigError
from ..storage import safetensors_bytes, write_bytes
from .interpolate import resize_tokens, square_grid
from .patched import PatchedBackbone

_HEADER = "dmp.table"


def bake_table(patched: PatchedBackbone, timesteps: Sequence[int | float], *, dense: bool = False) -> dict[str, Tensor]:
    """Compute the table for S ``timesteps`` as named tensors; the patch's strength is included.

    It has ``prompts.i`` (N, D) and ``weights.i`` (S, N, 1), on feature maps (H, W, C) and (S, H, W, 1). With ``dense``
    it has their products instead: ``mixtures.i`` (S, N, D) or (S, H, W, C).

    Raises:
        ConfigError: the gate reads the class too, so its weights do not follow from the timestep alone; or the patch
            has low-rank experts, which are no vectors.
    """
    patch = patched.patch
    if patch.config.gate_input != "timestep":
        raise ConfigError("this patch's gate reads the conditioning; a table over timesteps cannot hold its weights")
    if patch.num_experts:
        raise ConfigError("a table holds what is added to blocks, and this patch has low-rank experts inside them")
    with torch.inference_mode():
        at = torch.tensor(list(timesteps), device=patched.backbone.device)
        weights = [own * patched.strength for own in patch.spread(patched.gating(at).weights)]
        if patch.grid is not None:
            weights = [own.permute(0, 2, 3, 1) for own in weights]  # (S, 1, H, W) -> (S, H, W, 1)
        weights = [own.expand(len(at), *own.shape[1:]).float().cpu() for own in weights]
        prompts = [prompt.detach().float().cpu() for prompt in patch.prompts]
        if patch.config.prompt_grid is not None:  # what is added to the tokens, as the hooks resize it
            counts = [block.hidden_shape[0] for block in patched.backbone.list_blocks()]
            grids = [square_grid(count) for count in counts]
            weights = [resize_tokens(own, grid=grid) for own, grid in zip(weights, grids, strict=False)]
            prompts = [resize_tokens(p[None], grid=grid)[0] for p, grid in zip(prompts, grids, strict=False)]
        if dense:
            return {f"mixtures.{i}": own * p for i, (own, p) in enumerate(zip(weights, prompts, strict=True))}
        named = {f"prompts.{i}": prompt for i, prompt in enumerate(prompts)}
        return named | {f"weights.{i}": own for i, own in enumerate(weights)}


def describe_table(
    patched: PatchedBackbone, timesteps: Sequence[int | float], *, digest: str, dense: bool
) -> TableRecord:
    """The record of a table: its patch, backbone, timesteps, and the names of the prompted blocks.

    ``digest`` is the SHA-256 of the patch file.
    """
    record, blocks = patched.patch.record, patched.backbone.list_blocks()
    assert isinstance(record, PatchRecord)
    return TableRecord(
        timesteps=tuple(timesteps),
        blocks=tuple(block.name for block in blocks[: len(patched.patch.hidden_shapes)]),
        position=patched.patch.config.position,
        strength=patched.strength,
        dense=dense,
        backbone=record.backbone,
        patch=digest,
    )


def save_table(path: Path, tensors: dict[str, Tensor], record: TableRecord) -> str:
    """Write a table as one safetensors file, its record as JSON under ``dmp.table``; returns the file's SHA-256."""
    data = safetensors_bytes(tensors, {"format": "pt", _HEADER: record.model_dump_json()})
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()
