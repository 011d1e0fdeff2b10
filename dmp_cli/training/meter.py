"""The numbers of a log line: means over the steps since the last line, and what the run costs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..config import TrainConfig

T = TypeVar("T")


class Meter:
    """Collects the loss terms and the time of the steps since the last log line."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps, self.waited, self.start = 0, 0.0, time.perf_counter()

    def waiting(self, feed: Iterable[T]) -> Iterator[T]:
        """The items of ``feed``; the time spent waiting for them is counted."""
        items = iter(feed)
        while True:
            begin = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self.waited += time.perf_counter() - begin
            yield item

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the terms of one step. They stay on the device."""
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.steps += 1

    def read(self, *, step: int, lr: float) -> dict[str, Any]:
        """The line of the log for ``step``. This is the only method that waits for the device."""
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        skipped = round(means.pop("skipped", 0.0) * self.steps)
        seconds = time.perf_counter() - self.start
        line = {
            "step": step,
            **means,
            "lr": lr,
            "skipped_steps": skipped,
            "images_per_second": round(self.steps * self.config.batch_size / seconds, 2),
            "data_wait": round(self.waited / seconds, 4),  # share of the time, 0 to 1
            "memory_gib": round(memory_in_use(self.device) / 2**30, 3),
            "seconds_left": round((self.config.steps - step) * seconds / self.steps),
        }
        self._clear()
        return line


def memory_in_use(device: torch.device) -> int:
    """The peak memory so far in bytes: of the tensors on a GPU, or of this whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    # Linux counts in KiB, macOS in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
