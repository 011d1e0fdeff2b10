"""ImageSource: what every data set of images provides, whether a folder, a zip or shards hold its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

SUFFIXES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}


class ImageSource(ABC):
    """The n images of one data set, in a fixed order; :func:`find_images` makes it. Cheap to send to worker processes.

    ``path``: as the user gave it; ``classes``: names of the classes, empty when there are none; ``labels``: (n,) int64,
    positions in ``classes``, zeros when there are none; ``fingerprint``: SHA-256 over relative names, file sizes and
    captions, so that it stays the same when the data set is moved.
    """

    path: Path
    classes: list[str]
    labels: np.ndarray
    fingerprint: str
    # Index of the first image in each of k files that hold several images, and n: (k + 1,) int64. None: single files.
    spans: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def captioned(self) -> np.ndarray:
        """Whether each image has a caption, (n,) bool."""

    @property
    def has_captions(self) -> bool:
        """Whether every image has a caption."""
        return bool(self.captioned.all())

    def missing_captions(self, limit: int = 3) -> list[str]:
        """The names, as :meth:`name` gives them, of the first images without a caption."""
        return [self.name(int(index)) for index in np.flatnonzero(~self.captioned)[:limit]]

    @abstractmethod
    def caption(self, index: int) -> str:
        """The caption of image ``index``. Raises DataError, which names the image, when it is missing or unreadable."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The path of image ``index``, for messages; in a zip or shard it follows the path of that file."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The file of image ``index``, not decoded. Raises DataError, which names it, when it cannot be read."""
