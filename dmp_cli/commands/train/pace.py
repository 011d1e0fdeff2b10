"""Loss and speed of the first steps, before the first line of the log has means of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...training import Progress


class Pace:
    """What the bar says until the first line of the log is there. ``now`` gives seconds."""

    def __init__(self, batch_size: int, *, now: Callable[[], float] = time.perf_counter) -> None:
        self.batch_size, self._now = batch_size, now
        self._steps, self._began = 0, 0.0
        self._loss = ""

    def remark(self, event: Progress) -> str:
        """Loss and speed after one more step. The device is waited for at steps 1, 2, 4, 8, … alone."""
        self._steps += 1
        if self._steps & (self._steps - 1) == 0:
            self._loss = f"loss {float(event.terms['loss']):.4f}  "
        if self._steps == 1:  # which also began things up
            self._began = self._now()
            return self._loss.rstrip()
        seconds = max(self._now() - self._began, 1e-9)
        return f"{self._loss}{(self._steps - 1) * self.batch_size / seconds:.1f} images/s"
