"""dmp_cli.data.shuffling: each image once an epoch, in an order of the seed, within windows of shards."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_cli.data.shuffling import Order


@pytest.mark.parametrize(("count", "batch_size"), [(7, 3), (3, 7), (1, 4), (6, 3)])
def test_every_index_appears_once_per_epoch(count, batch_size):
    order = Order(count, batch_size=batch_size, seed=1)
    stream = [place for step in range(4 * count) for place in order.places(step)]
    assert len(stream) == 4 * count * batch_size
    for epoch in range(4 * batch_size):
        shown = stream[epoch * count : (epoch + 1) * count]
        assert sorted(shown) == [(epoch, index) for index in range(count)]


def test_seed_and_epoch_change_the_order():
    first, other = (Order(50, batch_size=100, seed=seed).places(0) for seed in (1, 2))
    assert [index for _, index in first[:50]] != [index for _, index in first[50:]]
    assert first != other


@pytest.mark.parametrize("counts", [[5, 1, 7], [3] * 20, [1], [0, 4, 0]])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_image_of_shards_appears_once_per_epoch(counts: list[int], processes: int) -> None:
    spans, count, size = np.cumsum([0, *counts]), sum(counts), 4
    orders = [Order(count, batch_size=size, seed=3, spans=spans) for _ in range(processes)]
    shares = [range(r * size // processes, (r + 1) * size // processes) for r in range(processes)]
    stream = [
        place
        for step in range(3 * count)
        for order, share in zip(orders, shares, strict=True)
        for place in order.places(step, share=share)
    ]
    for epoch in range(12):
        shown = stream[epoch * count : (epoch + 1) * count]
        assert sorted(shown) == [(epoch, index) for index in range(count)]
    late = Order(count, batch_size=size, seed=3, spans=spans)  # started anywhere, it goes on alike
    assert late.places(2 * count) == stream[2 * count * size : (2 * count + 1) * size]
    if count > 10:
        assert [index for _, index in stream[:count]] != [index for _, index in stream[count : 2 * count]]


def test_each_epoch_shuffles_its_windows_anew() -> None:
    order = Order(20, batch_size=20, seed=0, spans=np.array([0, 20]))
    first, second = ([index for _, index in order.places(epoch)] for epoch in range(2))
    assert first != second


def test_reading_stays_within_a_window_of_shards() -> None:
    spans = np.arange(0, 401, 10)  # forty shards of ten
    shown = [index for _, index in Order(400, batch_size=400, seed=0, spans=spans).places(0)]
    windows = [{index // 10 for index in shown[first : first + 80]} for first in range(0, 400, 80)]
    assert [len(window) for window in windows] == [8] * 5
    assert set().union(*windows) == set(range(40))
    first = [index // 10 for index in shown[:80]]
    assert len(set(first[:20])) > 4  # mixed within the window, not shard after shard
    assert sorted(windows[0]) != list(range(8))
