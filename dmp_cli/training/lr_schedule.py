"""The learning rates over the steps of a run."""

from __future__ import annotations

import math

from ..config import TrainConfig


def rate_factor(config: TrainConfig, step: int) -> float:
    """The factor of all learning rates at ``step`` (0-based): a linear warm-up, times a constant 1 or a cosine to 0."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.lr_schedule == "constant":
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of the prompts, or of all weights, at ``step`` (0-based)."""
    return config.lr * rate_factor(config, step)
