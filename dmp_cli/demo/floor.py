"""How far real digits are from other real digits: the score below which nothing is left to improve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..evaluation import fit_gaussian, frechet_distance, load_extractor
from ..runtime import randomness
from .digits import load_digits

_SPLITS = 20


@dataclass(frozen=True)
class Floor:
    """Frechet distance of one half of the real digits to the other, over random splits."""

    mean: float
    spread: float  # standard deviation over the splits
    count: int  # images in a half

    def scaled_to(self, count: int) -> float:
        """What ``count`` images against as many would give: the bias of the distance falls as one over the count."""
        return self.mean * self.count / count


def measure_floor(*, seed: int) -> Floor:
    """Split every class in two at random, as the samples are balanced over classes too, and measure; many times."""
    images, labels = load_digits()
    features = load_extractor("digits")(list(images[..., None]))
    values, count = [], 0
    for split in range(_SPLITS):
        first = _stratified_half(labels, seed=seed, split=split)
        count = int(first.sum())
        values.append(frechet_distance(fit_gaussian(features[first]), reference=fit_gaussian(features[~first])))
    return Floor(float(np.mean(values)), float(np.std(values, ddof=1)), count)


def _stratified_half(labels: np.ndarray, *, seed: int, split: int) -> np.ndarray:
    """A mask (n,) that takes half of every class, classes of odd size rounded up and down in turn."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = randomness.generator("floor", seed=seed, step=split, index=int(label)).permutation(members)
        chosen[order[int(label) % 2 :: 2]] = True
    return chosen
