"""The guard of a run, which stops a run that cannot succeed, without making the device wait.

The counts stay on the device. They are read some steps later, from a copy that is surely finished by then, so neither
the host nor the device waits. The delay is harmless, because a step that is not finite changes nothing.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import TrainConfig
from ..errors import DivergedError, DMPError
from ..runtime import STOP_SIGNALS

_LAG = 4  # steps between counting and reading, on a GPU
_NEVER = 16  # steps from the start, none of which counted, that end a run: so often can fp16's loss scale be halved
_PATIENCE = 100  # steps in a row without any gradient that end a run, once the warm-up is over

_END_OF_FP16 = ", where all beyond 65,504 overflows"


class Counts(NamedTuple):
    """The counts after some step."""

    not_finite: int  # steps in a row whose loss or gradient was not finite
    without_gradient: int  # steps in a row whose gradients were all exactly zero
    signals: tuple[int, ...]  # processes that received each of STOP_SIGNALS


class Guard:
    """Counts what goes wrong in a run.

    Each process has its own guard. All guards hold the same counts, because they count values that are summed over the
    processes.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.lag = _LAG if device.type == "cuda" else 0
        self._counts = torch.zeros(2 + len(STOP_SIGNALS), device=device)
        self._steps, self._first = 0, 0  # counted by this guard; a continued run begins with a new one
        self._unread: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def count(self, *, finite: Tensor, largest: Tensor, signals: Tensor, step: int) -> None:
        """Count one step (1-based).

        ``finite`` is 1 if its loss and gradients are finite, else 0; ``largest`` is the largest gradient norm that the
        images caused; ``signals`` (k,) are the numbers of processes that received each of ``STOP_SIGNALS``.
        """
        self._steps += 1
        self._first = self._first or step
        not_finite = 1 - finite.float()
        without_gradient = (largest == 0).float() * finite
        in_a_row = (self._counts[:2] + 1) * torch.stack([not_finite, without_gradient])
        self._counts = torch.cat([in_a_row, signals])
        self._unread.append((step, *self._copy()))

    def _copy(self) -> tuple[Tensor, torch.cuda.Event | None]:
        if self.device.type != "cuda":
            return self._counts, None
        copy = torch.empty(self._counts.shape, pin_memory=True).copy_(self._counts, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return copy, event

    def check(self) -> int | None:
        """Read the counts that are old enough; return the number of a signal that some process received, or None.

        Raises:
            DivergedError: more than ``config.max_bad_steps`` steps in a row were not finite, or the first 16.
            DMPError: after the warm-up, 100 steps in a row had no gradient.
        """
        if len(self._unread) <= self.lag:
            return None
        return self._judge(*self._unread.popleft())

    def finish(self) -> None:
        """Check all counts that have not been read yet, as :meth:`check` does; to be called after the last step.

        Raises:
            DivergedError: also if not one step was finite, so that nothing was learnt.
        """
        while self._unread:
            self._judge(*self._unread.popleft())
        if self._steps and int(self._counts[0]) == self._steps:
            raise self._diverged(
                f"none of the {self._steps} steps counted: the loss or its gradients were never all finite"
            )

    def _diverged(self, what: str) -> DivergedError:
        """The error that says ``what``, in which precision, and what may help."""
        precise = "" if self.config.dtype == "fp32" else ", or start anew with --dtype fp32"
        return DivergedError(
            f"{what} (--dtype {self.config.dtype}{_END_OF_FP16 if self.config.dtype == 'fp16' else ''})",
            hint=f"Lower --lr and --gate-lr, or add --warmup{precise}. The saved files contain nothing of these steps.",
        )

    def _judge(self, step: int, counts: Tensor, event: torch.cuda.Event | None) -> int | None:
        if event is not None:
            event.synchronize()
        not_finite, without_gradient, *signals = (int(count) for count in counts.tolist())
        counted = step - (self._first - 1)  # by this guard
        found = Counts(not_finite, without_gradient, tuple(signals))
        if found.not_finite > self.config.max_bad_steps:
            raise self._diverged(
                f"step {step}: the loss or its gradients are not all finite, for {found.not_finite} steps in a row"
            )
        if found.not_finite >= _NEVER and found.not_finite == counted:
            raise self._diverged(
                f"step {step}: none of the {counted} steps counted: the loss or its gradients were never all finite"
            )
        if found.without_gradient >= _PATIENCE and step > self.config.warmup:
            raise DMPError(
                f"step {step}: no gradient has reached the trainable parameters for {_PATIENCE} steps",
                hint="The backbone's output does not depend on them. Is its last layer zero, as before any training?",
            )
        received = [number for number, count in zip(STOP_SIGNALS, found.signals, strict=True) if count]
        return received[-1] if received else None
