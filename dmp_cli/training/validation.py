"""When the held-out loss is measured as a run goes on, what is kept of it, and when it ends the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import TrainConfig
from ..patching import PatchedBackbone
from .held_out import HeldOut, HeldOutLoss

if TYPE_CHECKING:
    from .loop import TrainingLoop
    from .run_folder import RunFolder


Judge = Callable[[int, float], str]  # of a step and its held-out loss: why the run is to end now; empty: it goes on


class Validation:
    """The measurements of one run. What came before is read from its log, so that a continued run goes on alike."""

    def __init__(self, loop: TrainingLoop, run: RunFolder, held_out: HeldOut, *, judge: Judge | None = None) -> None:
        """``loop`` is as it was before the first step: its network without patches is the bare one.

        ``judge`` is told of every measurement, of those of a continued run again; its last word counts.
        """
        self.loop, self.run, self.held_out, self._judge = loop, run, held_out, judge
        self.base = self._measure_bare()
        self.config: TrainConfig = loop.config
        self.improved = False  # whether the last measurement is the best one of something that was learnt
        self.best: tuple[float, int] | None = None  # the lowest loss so far, and its step
        self._stale = 0  # measurements since then
        self._verdict = ""  # what the judge said of the last one

    @property
    def is_over(self) -> bool:
        """Whether so many measurements in a row were no better that the run ends, or the judge says so."""
        return self._is_stale or bool(self._verdict)

    @property
    def _is_stale(self) -> bool:
        return self.config.patience is not None and self._stale >= self.config.patience

    @property
    def reason(self) -> str:
        """Why the run ends now, in a sentence; empty: it goes on."""
        if not self._is_stale or self.best is None:
            return self._verdict
        loss, step = self.best
        return f"{self._stale} measurements in a row did not lower the held-out loss of step {step}, {loss:.6f}"

    def begin(self) -> None:
        """Read what was measured before the step that the loop goes on from; measure what it starts from at step 0.

        The log holds nothing of later steps.
        """
        known = self.loop.world.tell(self.run.held_out_lines)
        for step, entry in known:
            self._count(step, float(entry["loss"]))
        if self.loop.step == 0 and not known:
            self._measure()

    def see(self, *, last: bool) -> HeldOutLoss | None:
        """Measure after a step that is to be measured; None after others."""
        if self.loop.step % self.config.val_every and not last:
            return None
        return self._measure()

    def _measure_bare(self) -> np.ndarray | None:
        """The losses (N,) that the trained ones are compared with; None: training from scratch has none."""
        denoiser = self.loop.trainee.denoiser
        if self.loop.config.method == "scratch":
            return None
        off = denoiser.disabled() if isinstance(denoiser, PatchedBackbone) else contextlib.nullcontext()
        with off:
            return self.held_out.losses(denoiser)

    def _measure(self) -> HeldOutLoss:
        losses, step = self.held_out.losses(self.loop.trainee.denoiser), self.loop.step
        found = self.held_out.compare(losses, base=self.base)
        self.improved = self._count(step, found.whole.loss) and step > 0
        if self.loop.world.is_first:
            line: dict[str, Any] = {"step": step, "held_out": found.line()}
            self.run.log(line)
            if self.config.val_losses:
                self.run.write_draws(self.held_out.table(losses, base=self.base))
        return found

    def _count(self, step: int, loss: float) -> bool:
        """Take note of a loss; whether it is the lowest so far."""
        if (judge := self._judge) is not None:
            self._verdict = self.loop.world.tell(lambda: judge(step, loss))
        if self.best is None or loss < self.best[0]:
            self.best, self._stale = (loss, step), 0
            return True
        self._stale += 1
        return False
