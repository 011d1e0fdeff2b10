"""When the held-out loss is measured as a run goes on, what is kept of it, and when it ends the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config import TrainConfig
from .held_out import HeldOut, HeldOutLoss

if TYPE_CHECKING:
    from .loop import TrainingLoop
    from .run_folder import RunFolder


class Validation:
    """The measurements of one run. What came before is read from its log, so that a continued run goes on alike."""

    def __init__(self, loop: TrainingLoop, *, run: RunFolder, held_out: HeldOut) -> None:
        self.loop, self.run, self.held_out = loop, run, held_out
        self.config: TrainConfig = loop.config
        self.improved = False  # whether the last measurement is the best one of something that was learnt
        self.best: tuple[float, int] | None = None  # the lowest loss so far, and its step
        self._stale = 0  # measurements since then

    @property
    def is_over(self) -> bool:
        """Whether so many measurements in a row were no better that the run ends."""
        return self.config.patience is not None and self._stale >= self.config.patience

    @property
    def reason(self) -> str:
        """Why the run ends now, in a sentence; empty: it goes on."""
        if not self.is_over or self.best is None:
            return ""
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

    def _measure(self) -> HeldOutLoss:
        found, step = self.held_out.measure(), self.loop.step
        self.improved = self._count(step, found.whole.loss) and step > 0
        if self.loop.world.is_first:
            line: dict[str, Any] = {"step": step, "held_out": found.line()}
            self.run.log(line)
        return found

    def _count(self, step: int, loss: float) -> bool:
        """Take note of a loss; whether it is the lowest so far."""
        if self.best is None or loss < self.best[0]:
            self.best, self._stale = (loss, step), 0
            return True
        self._stale += 1
        return False
