"""The sizes of a DiT, and the names of its public sizes: dit-s2 … dit-xl8."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from ..config import Frozen

NORM_EPS = 1e-6  # of every layer norm in the public checkpoints

_SIZES = {"s": (12, 384, 6), "b": (12, 768, 12), "l": (24, 1024, 16), "xl": (28, 1152, 16)}  # depth, width, heads
_HEADS = {width: heads for _, width, heads in _SIZES.values()}


class DiTConfig(Frozen):
    """The sizes of a DiT, and the two constants in which the trainings of DiTs differ."""

    input_size: int = Field(32, ge=1)  # side of the latent, or of the image in pixel space
    patch_size: int = Field(2, ge=1)  # side of a patch, in latent pixels
    in_channels: int = Field(4, ge=1)
    hidden_size: int = Field(1152, ge=4)
    depth: int = Field(28, ge=1)
    num_heads: int = Field(16, ge=1)
    mlp_size: int = Field(4608, ge=1)
    num_classes: int = Field(1000, ge=0)  # 0: no class table
    null_row: bool = True  # whether the class table has one more row, for "no class"
    learn_sigma: bool = True
    freq_shift: float = 0.0  # of the timestep frequencies: 0 in the public checkpoints, 1 in training with diffusers
    mlp_norm_eps: float = NORM_EPS  # of the norm before the MLP; training with diffusers takes norm_eps of its config

    @model_validator(mode="after")
    def _divisible(self) -> DiTConfig:
        if self.input_size % self.patch_size:
            raise ValueError(f"patch size {self.patch_size} does not divide the input size {self.input_size}")
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(f"width {self.hidden_size} must be a multiple of 4 and of the {self.num_heads} heads")
        if self.null_row and not self.num_classes:
            raise ValueError("a null row needs classes: num_classes is 0")
        return self

    @property
    def grid(self) -> int:
        """Number of tokens along one side of the image."""
        return self.input_size // self.patch_size

    @property
    def class_rows(self) -> int:
        """Number of rows of the class table."""
        return self.num_classes + int(self.null_row)


def named_config(name: str) -> DiTConfig | None:
    """The sizes of ``dit-b2``, ``DiT-XL/8``, …, with default classes and input size; None for any other name."""
    match = re.fullmatch(r"dit-(s|b|l|xl)/?(2|4|8)", name.lower())
    if match is None:
        return None
    depth, width, heads = _SIZES[match[1]]
    return DiTConfig(depth=depth, hidden_size=width, num_heads=heads, mlp_size=4 * width, patch_size=int(match[2]))


def standard_heads(width: int) -> int | None:
    """The number of attention heads of the public size with this width; None if no public size has this width."""
    return _HEADS.get(width)
