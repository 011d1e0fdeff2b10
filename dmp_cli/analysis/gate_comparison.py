"""What a gate's variation comes from, and how far two gates are apart. T timesteps, L blocks, N prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import PatchError
from ..storage import write_json
from .gate_weights import entropy_of, shares

_NOTHING = 1e-12


class Variance(NamedTuple):
    """Shares of a gate's variance; they sum to one."""

    timestep: float  # what the mean over the blocks does over the timesteps
    depth: float  # what the mean over the timesteps does over the blocks
    both: float  # what neither explains alone


def split_variance(weights: np.ndarray) -> Variance | None:
    """Two-way analysis of variance of the weights (T, L, N), summed over the prompts; None for a gate that is constant.

    In a linear gate the depth is a shift of the logits, which through the softmax shows as ``depth`` and ``both``.
    """
    exact = shares(weights)
    mean = exact.mean((0, 1))  # (N,)
    total = float(((exact - mean) ** 2).mean((0, 1)).sum())
    if total < _NOTHING:
        return None
    # sum_t,i (w - mean)^2 = L sum_t (w_t - mean)^2 + T sum_i (w_i - mean)^2 + rest
    timestep = float(((exact.mean(1) - mean) ** 2).mean(0).sum()) / total
    depth = float(((exact.mean(0) - mean) ** 2).mean(0).sum()) / total
    return Variance(timestep, depth, max(0.0, 1 - timestep - depth))


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats, (T, L): 0 where both gates weigh alike, log 2 where they share no prompt.

    Raises:
        PatchError: gates of another number of timesteps, blocks or prompts.
    """
    if one.shape != other.shape:
        raise PatchError(
            f"the gates are of other sizes: {one.shape} and {other.shape} timesteps, blocks and prompts",
            hint="Compare patches of one backbone and variant.",
        )
    first, second = shares(one), shares(other)
    gap = entropy_of((first + second) / 2) - (entropy_of(first) + entropy_of(second)) / 2
    return np.maximum(gap, 0.0)


def write_comparison(folder: Path, gap: np.ndarray, timesteps: np.ndarray, *, names: tuple[str, str]) -> dict[str, Any]:
    """Write ``comparison.json``: the divergence of each block, its mean and where it is largest; gives its content."""
    blocks = [
        {
            "block": block,
            "mean": float(column.mean()),
            "largest": float(column.max()),
            "largest_at_timestep": int(timesteps[column.argmax()]),
        }
        for block, column in enumerate(gap.T)
    ]
    meaning = "Jensen-Shannon divergence of the gate weights in nats: 0 alike, 0.693 no prompt in common"
    content = {"patches": list(names), "mean": float(gap.mean()), "blocks": blocks, "definition": meaning}
    write_json(folder / "comparison.json", content)
    return content
