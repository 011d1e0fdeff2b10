"""A part of a data set: some of its images, in their order; and the split into images to train on and held-out ones.

n images in the data set, m of them in the part.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import DataError
from ..runtime import randomness
from .readers import Reader
from .source import ImageSource, Stamp


class Subset(ImageSource):
    """The images ``indices`` (m,), rising, of another source, with its classes and its fingerprint."""

    def __init__(self, images: ImageSource, indices: np.ndarray) -> None:
        self._images, self.indices = images, np.asarray(indices, np.int64)
        self.path, self.classes, self.rules = images.path, images.classes, images.rules
        self.fingerprint, self.passed_over = images.fingerprint, images.passed_over
        self.labels = images.labels[self.indices]
        if images.spans is not None:
            starts = np.searchsorted(self.indices, images.spans)  # (k + 1,)
            self.spans = np.unique(starts)  # without files of which nothing is left

    @property
    def captioned(self) -> np.ndarray:
        return self._images.captioned[self.indices]

    def captions(self, index: int) -> list[str]:
        return self._images.captions(int(self.indices[index]))

    def every_caption(self) -> Iterator[str]:
        return self._images.every_caption()

    def name(self, index: int) -> str:
        return self._images.name(int(self.indices[index]))

    def read(self, index: int) -> bytes:
        return self._images.read(int(self.indices[index]))

    def stamp(self, index: int) -> Stamp:
        return self._images.stamp(int(self.indices[index]))


class SubsetReader:
    """Reads the values of a :class:`Subset` from those of the whole data set, such as a latent store."""

    def __init__(self, reader: Reader, indices: np.ndarray) -> None:
        self._reader, self._indices = reader, indices

    def read(self, index: int, *, mirrored: bool) -> np.ndarray:
        """See :class:`Reader`."""
        return self._reader.read(int(self._indices[index]), mirrored=mirrored)

    def take_remarks(self) -> list[str]:
        """See :class:`Reader`."""
        return self._reader.take_remarks()


def hold_out(images: ImageSource, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Split 0..n-1 into images to train on and held-out ones, both rising; ``share`` of each class is held out.

    It depends on nothing but the labels, so that every run on the same data holds out the same images.

    Raises:
        DataError: no image would be held out, or a class would lose all of its images.
    """
    held: list[np.ndarray] = []
    for label in np.unique(images.labels):
        own = np.flatnonzero(images.labels == label)
        count = round(share * len(own))
        if count == len(own):
            name = images.classes[int(label)] if images.classes else "the data"
            raise DataError(
                f"--val-split {share:g} would hold out all {len(own)} images of {name}",
                hint="Give a smaller share, or other images with --val-data.",
            )
        order = randomness.permutation("hold-out", len(own), seed=0, step=int(label))
        held.append(own[order[:count]])
    held_out = np.sort(np.concatenate(held))
    if not len(held_out):
        raise DataError(
            f"--val-split {share:g} of {len(images):,} images holds out none",
            hint="Give a larger share, or other images with --val-data.",
        )
    return np.setdiff1d(np.arange(len(images)), held_out), held_out
