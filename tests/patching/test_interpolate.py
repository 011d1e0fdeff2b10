"""Pooling and resizing on an image's grid, by hand."""

from __future__ import annotations

import torch

from dmp_cli.patching.interpolate import pool_weights, resize_maps, resize_tokens, square_grid


def test_pooling_sums_the_weights_of_each_place() -> None:
    weights = torch.arange(16.0)[None]  # rows 0-3, 4-7, 8-11, 12-15
    pooled = pool_weights(weights, grid=(4, 4), size=(2, 2))
    assert pooled.tolist() == [[[[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]]]
    assert pool_weights(weights, grid=(4, 4), size=(4, 2)).tolist() == [
        [[[0 + 1, 2 + 3], [4 + 5, 6 + 7], [8 + 9, 10 + 11], [12 + 13, 14 + 15]]]
    ]
    assert torch.equal(pool_weights(weights, grid=(4, 4), size=(4, 4)), weights.view(1, 1, 4, 4))


def test_maps_of_their_own_size_stay_as_they_are() -> None:
    maps = torch.randn(1, 2, 3, 3)
    assert resize_maps(maps, size=(3, 3)) is maps


def test_resizing_is_bilinear() -> None:
    doubled = resize_maps(torch.tensor([[[[0.0, 4.0]]]]), size=(1, 4))
    assert doubled.tolist() == [[[[0.0, 1.0, 3.0, 4.0]]]]  # centres at -1/4, 1/4, 3/4, 5/4, held at the edges


def test_tokens_are_resized_on_their_square_grid() -> None:
    tokens = torch.randn(2, 9, 5)
    maps = tokens.transpose(1, 2).reshape(2, 5, 3, 3)
    expected = resize_maps(maps, size=(6, 6))
    resized = resize_tokens(tokens, grid=square_grid(36))
    for row in range(6):
        for column in range(6):
            assert torch.equal(resized[:, row * 6 + column], expected[:, :, row, column])
    assert resize_tokens(tokens, grid=square_grid(9)) is tokens
