"""The distance of real digits from other real digits: a perfect generator would score no lower."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..evaluation import fit_gaussian, frechet_distance, load_extractor
from ..runtime import randomness
from .digits import load_digits

_SPLITS = 20  # random splits to average over


@dataclass(frozen=True)
class Floor:
    """Frechet distance between two random halves of the real digits, averaged over random splits."""

    mean: float
    spread: float  # standard deviation over the splits
    count: int  # images in one half

    def scaled_to(self, count: int) -> float:
        """The distance of ``count`` images from as many others; its bias is proportional to 1 / count."""
        return self.mean * self.count / count


def measure_floor(*, seed: int) -> Floor:
    """Measure the distance between two random halves of the digits, many times.

    Each half has the same share of every class, as the samples of the demo are balanced over classes too.
    """
    images, labels = load_digits()
    features = load_extractor("digits")(list(images[..., None]))
    values, count = [], 0
    for split in range(_SPLITS):
        first = _stratified_half(labels, seed=seed, split=split)
        count = int(first.sum())
        values.append(frechet_distance(fit_gaussian(features[first]), reference=fit_gaussian(features[~first])))
    return Floor(float(np.mean(values)), float(np.std(values, ddof=1)), count)


def _stratified_half(labels: np.ndarray, *, seed: int, split: int) -> np.ndarray:
    """A mask (n,) of half the images of every class. Odd sizes are rounded up for even labels, down for odd ones."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = randomness.generator("floor", seed=seed, step=split, index=int(label)).permutation(members)
        chosen[order[int(label) % 2 :: 2]] = True
    return chosen
