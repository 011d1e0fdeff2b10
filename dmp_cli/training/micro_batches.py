"""How many images of a step are on the device at once, and what is said or done when they do not fit."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..config import TrainConfig
from ..errors import DMPError
from ..runtime import free_memory, measure_peak

_SPARE = 0.9  # share of the free memory that is counted on: the rest is lost between the pieces


class MicroBatches:
    """The parts that a process computes one after the other; their gradients add up to those of its images."""

    def __init__(self, config: TrainConfig, *, count: int, device: torch.device) -> None:
        """``count`` is the number of images of this process."""
        self.config, self.count, self.device = config, count, device
        self.size = min(config.micro_batch_size or count, count)
        self._remarks: list[str] = []

    def parts(self) -> list[slice]:
        """The micro-batches of a step, as slices of the images of this process."""
        return [slice(first, min(first + self.size, self.count)) for first in range(0, self.count, self.size)]

    def halve(self) -> bool:
        """Take smaller micro-batches from now on; False where the options do not allow it or there are none."""
        if not self.config.auto_micro_batch or self.size == 1:
            return False
        before, self.size = self.size, _divisor(self.count, at_most=self.size // 2)
        self._remarks.append(f"out of memory with {before} images at once; going on with micro-batches of {self.size}")
        return True

    def take_remarks(self) -> list[str]:
        """What was changed since the last call, in words."""
        remarks, self._remarks = self._remarks, []
        return remarks

    def refusal(self, step: int, compute: Callable[[slice], object]) -> DMPError:
        """The error of a step (1-based) that does not fit, with what would. ``compute`` computes one micro-batch."""
        less = "--gradient-checkpointing needs less memory too"
        if self.size == 1:
            hint = "Continue with --resume --gradient-checkpointing, or start anew with --dtype bf16."
        else:
            size = self._fitting(compute) or _divisor(self.config.batch_size, at_most=self.size // 2)
            hint = f"Continue with --resume --micro-batch-size {size}, or with --resume --auto-micro-batch; {less}."
        images = "1 image" if self.size == 1 else f"{self.size} images"
        return DMPError(f"out of memory in step {step}, with {images} on the device at once", hint=hint)

    def _fitting(self, compute: Callable[[slice], object]) -> int | None:
        """The largest micro-batch that fits, from the measured peaks of one and of two images; None: not measurable."""
        if self.config.shard_backbone:  # a forward needs all processes
            return None
        try:
            peaks = [measure_peak(self.device, lambda k=k: compute(slice(0, k))) for k in (1, 2)]  # type: ignore[misc]
        except (RuntimeError, MemoryError):  # not even these fit
            return 1
        one, two = peaks
        if one is None or two is None or two <= one:
            return None
        each = two - one
        room = int((free_memory(self.device) * _SPARE - (one - each)) // each)
        return _divisor(self.config.batch_size, at_most=max(1, min(room, self.size - 1)))


def _divisor(count: int, *, at_most: int) -> int:
    """The largest divisor of ``count`` that is at most ``at_most``."""
    return next(size for size in range(max(1, at_most), 0, -1) if count % size == 0)
