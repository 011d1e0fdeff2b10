"""What is said of a gate, for gates whose choice is known."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_cli.analysis import describe_gate, split_variance, study

T, L, N = 6, 3, 8


def said(weights: np.ndarray) -> str:
    return describe_gate(study(weights, timesteps=np.arange(len(weights))), split_variance(weights))


def peaks(at: np.ndarray) -> np.ndarray:
    """Weights (T, L, N) of which most lies on the prompt that ``at`` (T, L) names."""
    weights = np.full((*at.shape, N), 0.02, np.float32)
    np.put_along_axis(weights, at[..., None], 1 - 0.02 * (N - 1), -1)
    return weights


def test_a_fresh_gate_makes_no_choice() -> None:
    weights = np.full((T, L, N), 1 / N, np.float32)
    assert said(weights) == "the gate makes no choice yet: 8 of 8 prompts are used alike"


@pytest.mark.parametrize(
    ("at", "follows"),
    [
        (np.zeros((T, L), int), "on the same ones at every timestep and block"),
        (np.repeat(np.arange(T)[:, None], L, 1), "follows the timestep (100 % of its variance)"),
        (np.repeat(np.arange(L)[None], T, 0), "follows the block (100 % of its variance)"),
        (np.arange(T)[:, None] // 3 + 2 * np.arange(L)[None], "follows timestep ("),
    ],
)
def test_what_a_choice_follows(at: np.ndarray, follows: str) -> None:
    sentence = said(peaks(at))
    assert sentence.startswith("the gate chooses: its weight lies on about 2 of 8 prompts, ")
    assert follows in sentence


def test_a_gate_that_is_nearly_uniform_chooses_little() -> None:
    weights = np.full((T, L, N), 0.85 / (N - 1), np.float32)
    np.put_along_axis(weights, np.zeros((T, L, 1), int), 0.15, -1)
    weights[..., 1], weights[..., 2] = weights[..., 1] * 0.4, weights[..., 2] + weights[..., 1] * 0.6
    weights /= weights.sum(-1, keepdims=True)
    assert said(weights).startswith("the gate chooses little: its weight lies on about ")


def test_one_prompt_is_no_choice() -> None:
    assert "nothing to choose" in said(np.ones((T, L, 1), np.float32))
