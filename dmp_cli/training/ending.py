"""What a signal would do to a run at this moment, for the sentence that answers it at once."""

from __future__ import annotations

from ..runtime import Foresight
from ..storage import in_bytes
from .loop import TrainingLoop

_ADAM = 2  # AdamW keeps two averages of each parameter's gradient, and a step counter of 4 bytes


class Ending:
    """Knows after which step a run would end if it were asked to now, and what it would lose if it could not save."""

    def __init__(self, loop: TrainingLoop, *, saved: int | None) -> None:
        """``saved`` is the step of the newest checkpoint; None: there is none."""
        self.saved, self._loop, self._begun, self._size = saved, loop, loop.step, state_size(loop)
        self._told = 0 if loop.world.size == 1 else 1 + loop.guard.lag  # steps until all processes know of a request
        self._step = min(loop.step + max(1, self._told), loop.config.steps)

    def pass_by(self) -> None:
        """To be called before the loop looks whether it is asked to end: what comes later ends it after a later step.

        A request that several processes tell each other waits for the guard, which reads some steps late.
        """
        self._step = min(self._loop.step + 1 + self._told, self._loop.config.steps)

    def foresee(self) -> Foresight:
        """What a first and a second signal do."""
        lost = self._step - (self.saved or 0)
        if lost <= 0:  # it is being saved already, once more
            what = "stop at once"
        elif self.saved is None:
            what = f"stop without saving, which loses {'step 1' if lost == 1 else f'all {lost} steps'}"
        else:
            steps = f"step {self._step}" if lost == 1 else f"the {lost} steps since step {self.saved}"
            what = f"stop without saving, which loses {steps}"
        return Foresight(f"saving step {self._step} ({in_bytes(self._size)})", what)


def state_size(loop: TrainingLoop) -> int:
    """Bytes of the tensors of a checkpoint: what is learnt, its helpers, the optimizer's state and the average."""
    held = [*loop.trainee.learnt.values(), *loop.helpers().values(), *loop.ema.values()]
    stepped = sum(_ADAM * parameter.nbytes + 4 for parameter in loop.parameters)
    return sum(tensor.nbytes for tensor in held) + stepped
