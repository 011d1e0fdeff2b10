"""dmp_cli.analysis.gate_comparison: shares of variance and divergences of gates with known values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dmp_cli.analysis.gate_comparison import divergence, split_variance
from dmp_cli.errors import PatchError


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def random_weights(*, time: float, depth: float, both: float, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed).normal
    parts: list[Any] = [time * draw(size=(20, 1, 6)), depth * draw(size=(1, 5, 6)), both * draw(size=(20, 5, 6))]
    return softmax(sum(parts))


@pytest.mark.parametrize("cause", ["time", "depth"])
def test_a_gate_with_one_cause(cause: str) -> None:
    variance = split_variance(random_weights(**{"time": 0.0, "depth": 0.0, "both": 0.0, cause: 1.0}))
    assert variance is not None
    expected = {"time": (1, 0, 0), "depth": (0, 1, 0)}[cause]
    assert variance == pytest.approx(expected, abs=1e-12)


def test_shares_against_a_loop() -> None:
    weights = random_weights(time=1, depth=0.5, both=0.3)
    times, blocks, prompts = weights.shape
    total = time = depth = 0.0
    for n in range(prompts):
        mean = sum(weights[t, i, n] for t in range(times) for i in range(blocks)) / (times * blocks)
        for t in range(times):
            at = sum(weights[t, i, n] for i in range(blocks)) / blocks
            time += blocks * (at - mean) ** 2
        for i in range(blocks):
            of = sum(weights[t, i, n] for t in range(times)) / times
            depth += times * (of - mean) ** 2
        total += sum((weights[t, i, n] - mean) ** 2 for t in range(times) for i in range(blocks))
    found = split_variance(weights)
    assert found is not None
    assert found == pytest.approx((time / total, depth / total, 1 - (time + depth) / total), rel=1e-9)


def test_a_constant_gate_has_no_variance() -> None:
    assert split_variance(np.full((4, 3, 5), 0.2)) is None


def test_divergence_by_hand() -> None:
    one = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.25, 0.75], [1.0, 0.0]]])  # (2, 2, 2)
    other = np.array([[[0.0, 1.0], [0.5, 0.5]], [[0.75, 0.25], [2.0, 0.0]]])  # the last row counts as a share
    # (1/4, 3/4) and (3/4, 1/4): log 2 - H(1/4)
    middle = math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    assert divergence(one, other) == pytest.approx(np.array([[math.log(2), 0], [middle, 0]]), abs=1e-12)
    assert np.array_equal(divergence(one, other), divergence(other, one))


def test_gates_of_different_sizes_are_refused() -> None:
    with pytest.raises(PatchError, match="differ in size"):
        divergence(np.ones((2, 2, 3)), np.ones((2, 2, 4)))
