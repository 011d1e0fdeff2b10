"""Tiny real things for tests: backbones with weights that matter, checkpoints, image folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dmp_cli.backbones.dit import DiT, DiTConfig

TINY = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 3,
    "hidden_size": 16,
    "depth": 3,
    "num_heads": 2,
    "mlp_size": 32,
    "num_classes": 4,
    "null_row": True,
    "learn_sigma": True,
}


def tiny_dit(*, seed: int = 0, **changes: Any) -> DiT:
    """A DiT of some thousand weights, none of them zero, so that every part shows in its output."""
    backbone = DiT(DiTConfig(**{**TINY, **changes}))
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if name != "pos_embed":
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=source))
    return backbone.eval()


def write_meta_checkpoint(path: Path, backbone: DiT, *, wrap: str | None = "ema", prefix: str = "") -> Path:
    """A training checkpoint as Meta's DiT code leaves it: weights under ``wrap`` (None: bare)."""
    weights = {prefix + name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    torch.save(weights if wrap is None else {wrap: weights}, path)
    return path


def write_images(folder: Path, *, count: int = 8, size: int = 8, classes: int = 4, seed: int = 0) -> Path:
    """``count`` random RGB PNGs spread over ``classes`` sub-folders (0: flat)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        place = folder / str(index % classes) if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index:04d}.png")
    return folder
