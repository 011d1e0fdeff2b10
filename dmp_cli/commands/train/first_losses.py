"""A cheap check of the first steps: whether the backbone predicts what it is taken to predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ...training import Progress, Trainee

_STEPS = 4  # batches that are looked at
_BOUND = 1.1  # predicting nothing has a loss of 1: the noise, and v, have variance 1; and a little for few images
_WORDS = {
    "epsilon": "the noise",
    "v_prediction": "v",
    "velocity": "the velocity",
    "score": "the score",
    "sample": "the image",
}
# What predicting nothing has: the velocity of a flow is made of data and noise, each of variance 1.
_NOTHING = {"velocity": 2}


class FirstLosses:
    """Compares the loss of the first batches with what a trained backbone can have."""

    def __init__(self, trainee: Trainee) -> None:
        self.prediction = trainee.backbone.schedule.prediction
        self._seen: list[Tensor] = []

    def remark(self, event: Progress) -> str | None:
        """What is suspicious once enough batches are seen, in words; else None."""
        if event.step > _STEPS or len(self._seen) >= _STEPS:
            return None
        self._seen.append(event.terms["mse"].detach())
        if len(self._seen) < _STEPS:
            return None
        mean = sum(float(loss) for loss in self._seen) / _STEPS
        nothing = _NOTHING.get(self.prediction, 1)
        if not mean > _BOUND * nothing:
            return None
        return (
            f"the first {_STEPS} batches have a mean loss of {mean:.3g}; a trained backbone that predicts "
            f"{_WORDS[self.prediction]} has less than {nothing}. It may predict something else (--objective), under "
            "another noise schedule (--schedule), or of other images than it was trained on"
        )
