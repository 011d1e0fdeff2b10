"""What stops a run that cannot succeed, watched without making the device wait.

Counts live on the device. They are read a few steps late from a copy that is certainly finished by then, so that
neither the host nor the device waits; a step that is not finite changes nothing, so being late costs nothing.
"""

from __future__ import annotations

import signal
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import TrainConfig
from ..errors import DivergedError, DMPError

_LAG = 8  # steps between a count and its reading, on a GPU
_STILL = 100  # steps after warm-up without any gradient before a run is given up


class Seen(NamedTuple):
    """What the counts said, some steps ago."""

    bad_in_a_row: int  # steps whose loss or gradient was not finite
    still_in_a_row: int  # steps whose gradients were all exactly zero
    interrupted: int  # processes that met Ctrl-C
    ended: int  # processes that met SIGTERM


class Guard:
    """Counts what goes wrong. One for each process; all see the same, as what they count is the same everywhere."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self._lag = _LAG if device.type == "cuda" else 0
        self._counts = torch.zeros(len(Seen._fields), device=device)
        self._late: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def count(self, *, finite: Tensor, largest: Tensor, signals: Tensor, step: int) -> None:
        """Take note of ``step`` (1-based): whether ``finite``, the ``largest`` gradient of the images, ``signals``."""
        bad = 1 - finite.float()
        still = (largest == 0).float() * finite
        in_a_row = (self._counts[:2] + 1) * torch.stack([bad, still])
        self._counts = torch.cat([in_a_row, signals])
        self._late.append((step, *self._copy()))

    def _copy(self) -> tuple[Tensor, torch.cuda.Event | None]:
        if self.device.type != "cuda":
            return self._counts, None
        copy = torch.empty(self._counts.shape, pin_memory=True).copy_(self._counts, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return copy, event

    def check(self) -> int | None:
        """The number of a signal that some process met, or None.

        Raises:
            DivergedError: more steps in a row than allowed were not finite, or none had any gradient.
        """
        if len(self._late) <= self._lag:
            return None
        return self._judge(*self._late.popleft())

    def finish(self) -> None:
        """Like :meth:`check` for all that has not been read yet; to be called after the last step."""
        while self._late:
            self._judge(*self._late.popleft())

    def _judge(self, step: int, counts: Tensor, event: torch.cuda.Event | None) -> int | None:
        if event is not None:
            event.synchronize()
        seen = Seen(*(int(count) for count in counts.tolist()))
        if seen.bad_in_a_row > self.config.max_bad_steps:
            raise DivergedError(
                f"step {step}: the loss or its gradients are not all finite, for {seen.bad_in_a_row} steps in a row",
                hint="Lower --lr and --gate-lr, or add --warmup; nothing of these steps is in what is saved.",
            )
        if seen.still_in_a_row >= _STILL and step > self.config.warmup:
            raise DMPError(
                f"step {step}: for {_STILL} steps no gradient has reached what is to be learnt",
                hint="The backbone's output does not depend on it: is its last layer zero, as in a fresh one?",
            )
        return signal.SIGTERM if seen.ended else signal.SIGINT if seen.interrupted else None
