"""What a data set of images answers, wherever its files are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

SUFFIXES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}


class ImageSource(ABC):
    """The images of one data set, in a fixed order; made by :func:`find_images`. Cheap to send to worker processes.

    ``path``: as given; ``classes``: names of the classes, empty when there are none; ``labels``: (n,) int64, the
    position in ``classes``, zeros when there are none; ``fingerprint``: SHA-256 over relative names and file sizes, and
    over the captions where there are some: the same wherever the data set lies.
    """

    path: Path
    classes: list[str]
    labels: np.ndarray
    fingerprint: str
    # Where stretches of images begin that lie together in one file, and n: (k + 1,) int64. None: each is a file.
    spans: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def captioned(self) -> np.ndarray:
        """(n,) bool: whether image i has a caption."""

    @property
    def has_captions(self) -> bool:
        """Whether every image has a caption."""
        return bool(self.captioned.all())

    def missing_captions(self, limit: int = 3) -> list[str]:
        """The first images without a caption, by :meth:`name`."""
        return [self.name(int(index)) for index in np.flatnonzero(~self.captioned)[:limit]]

    @abstractmethod
    def caption(self, index: int) -> str:
        """The caption of image ``index``. Raises DataError, naming the image, when it has none or it is unreadable."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The path of image ``index``, for messages; within a zip or shard it follows that file's own path."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The file of image ``index``, undecoded. Raises DataError, naming it, when it cannot be read."""
