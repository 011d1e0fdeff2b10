"""Learning rates over the steps of a run."""

from __future__ import annotations

import math

from ..config import TrainConfig


def rate_factor(config: TrainConfig, step: int) -> float:
    """What the learning rates are multiplied by at ``step`` (0-based): linear warm-up, then constant or cosine to 0."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.lr_schedule == "constant":
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of the prompts (or of all weights) at ``step`` (0-based)."""
    return config.lr * rate_factor(config, step)
