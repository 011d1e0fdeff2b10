"""Prompts and gate weights on the two-dimensional grid of an image: pooled to a smaller grid, resized to another one.

Letters: B batch, C channels, H and W the sides of a grid, N = H * W, D width of a token.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def pool_weights(weights: Tensor, *, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Gate weights (B, N) of a map of ``grid`` -> (B, 1, H, W) of ``size``, summed, so that their total stays."""
    (rows, columns), (height, width) = grid, size
    assert (rows % height, columns % width) == (0, 0), "a block's grid divides the gate's"
    tiles = weights.view(-1, height, rows // height, width, columns // width)
    return tiles.sum((2, 4))[:, None]


def resize_maps(maps: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Maps (B, C, H, W) at another ``size``, bilinearly; as they are where it is their own."""
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def resize_tokens(tokens: Tensor, *, count: int) -> Tensor:
    """Tokens (B, N, D) of a square grid as ``count`` tokens of another one; as they are where it is their own."""
    batch, own, width = tokens.shape
    if own == count:
        return tokens
    side, new = math.isqrt(own), math.isqrt(count)
    assert (side * side, new * new) == (own, count), "tokens of a square image"
    maps = tokens.transpose(1, 2).reshape(batch, width, side, side)
    return resize_maps(maps, size=(new, new)).flatten(2).transpose(1, 2)  # (B, count, D)
