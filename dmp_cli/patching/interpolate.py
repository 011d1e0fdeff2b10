"""Fit prompts and gate weights to another image grid: pool them to a smaller one, or resize them to any.

Letters: B batch, C channels, H and W the sides of a grid, N = H * W, D width of a token.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def pool_weights(weights: Tensor, *, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Pool the gate weights (B, N) of a map of size ``grid`` to a block's ``size`` (H, W): (B, 1, H, W).

    Weights that fall on the same place are summed, so that their total stays the same.
    """
    (rows, columns), (height, width) = grid, size
    assert (rows % height, columns % width) == (0, 0), "the sides of a block's grid must divide those of the gate's map"
    tiles = weights.view(-1, height, rows // height, width, columns // width)
    return tiles.sum((2, 4))[:, None]


def resize_maps(maps: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Resize maps (B, C, H, W) to ``size`` bilinearly. Maps that have this size already are returned as they are."""
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def square_grid(count: int) -> tuple[int, int]:
    """The rows and columns of ``count`` tokens of a square grid."""
    side = math.isqrt(count)
    assert side * side == count, "the tokens must form a square grid"
    return side, side


def resize_tokens(tokens: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Resize the tokens (B, N, D) of a square grid to those of ``grid``, its rows and columns: (B, N', D)."""
    batch, own, width = tokens.shape
    side = square_grid(own)[0]
    if grid == (side, side):
        return tokens
    maps = tokens.transpose(1, 2).reshape(batch, width, side, side)
    return resize_maps(maps, size=grid).flatten(2).transpose(1, 2)  # (B, count, D)
