"""The pace of a run: its learning rates over the steps, and the means between two lines of its log."""

from __future__ import annotations

import math
import time
from typing import Any

from torch import Tensor

from .config import TrainConfig


def rate_factor(config: TrainConfig, step: int) -> float:
    """What the learning rates are multiplied by at ``step`` (0-based): linear warm-up, then constant or cosine to 0."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.lr_schedule == "constant":
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of the prompts (or of all weights) at ``step`` (0-based)."""
    return config.lr * rate_factor(config, step)


class Meter:
    """Means over the steps since the last log line."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps, self.start = 0, time.perf_counter()

    def add(self, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.steps += 1

    def read(self, *, step: int, lr: float) -> dict[str, Any]:
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        rate = self.steps * self.batch_size / (time.perf_counter() - self.start)
        self._clear()
        return {"step": step, **means, "lr": lr, "images_per_second": round(rate, 2)}
