"""Where the variance of a gate comes from, and how much two gates differ. T timesteps, L blocks, N prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import PatchError
from ..storage import write_json
from .gate_weights import entropy_of, shares, timestep_in_words

COMPARED = ("block", "mean", "largest", "at timestep")  # columns of a table of two gates, in nats
_MIN_VARIANCE = 1e-12  # a gate with less is constant, up to rounding


class Variance(NamedTuple):
    """Shares of a gate's variance. They sum to one."""

    timestep: float  # variance of the mean over the blocks
    depth: float  # variance of the mean over the timesteps
    both: float  # the rest: the interaction of timestep and depth


def split_variance(weights: np.ndarray) -> Variance | None:
    """Two-way analysis of variance of the weights (T, L, N), summed over the prompts; None for a constant gate.

    In a linear gate the depth shifts the logits. After the softmax, this shows as ``depth`` and as ``both``.
    """
    exact = shares(weights)
    mean = exact.mean((0, 1))  # (N,)
    total = float(((exact - mean) ** 2).mean((0, 1)).sum())
    if total < _MIN_VARIANCE:
        return None
    # sum_t,i (w - mean)^2 = L sum_t (w_t - mean)^2 + T sum_i (w_i - mean)^2 + rest
    timestep = float(((exact.mean(1) - mean) ** 2).mean(0).sum()) / total
    depth = float(((exact.mean(0) - mean) ** 2).mean(0).sum()) / total
    return Variance(timestep, depth, max(0.0, 1 - timestep - depth))


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of two gates in nats, (T, L).

    It is 0 where both gates give the same weights, and log 2 where they use no prompt in common.

    Raises:
        PatchError: the gates differ in the number of timesteps, blocks or prompts.
    """
    if one.shape != other.shape:
        raise PatchError(
            f"the gates differ in size: {one.shape} and {other.shape} (timesteps, blocks, prompts)",
            hint="Compare patches of the same backbone and the same variant.",
        )
    first, second = shares(one), shares(other)
    gap = entropy_of((first + second) / 2) - (entropy_of(first) + entropy_of(second)) / 2
    return np.maximum(gap, 0.0)


def write_comparison(folder: Path, gap: np.ndarray, timesteps: np.ndarray, *, names: tuple[str, str]) -> dict[str, Any]:
    """Write ``comparison.json`` and return its content: for each block the mean and the maximum of ``gap`` (T, L)."""
    blocks = [
        {
            "block": block,
            "mean": float(column.mean()),
            "largest": float(column.max()),
            "largest_at_timestep": timesteps[column.argmax()].item(),
        }
        for block, column in enumerate(gap.T)
    ]
    meaning = "Jensen-Shannon divergence of the gate weights in nats: 0 alike, 0.693 no prompt in common"
    content = {"patches": list(names), "mean": float(gap.mean()), "blocks": blocks, "definition": meaning}
    write_json(folder / "comparison.json", content)
    return content


def compared_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """The blocks of a ``comparison.json`` as rows of text, in the order of ``COMPARED``."""
    return [
        [
            str(one["block"]),
            f"{one['mean']:.4f}",
            f"{one['largest']:.4f}",
            timestep_in_words(one["largest_at_timestep"]),
        ]
        for one in content["blocks"]
    ]
