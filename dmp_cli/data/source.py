"""ImageSource: what every data set of images provides, whether a folder, a zip or shards hold its files."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .kinds import RULES


class Stamp(NamedTuple):
    """What is known of an image file without reading it; another stamp may mean another content."""

    size: int  # bytes
    time: int  # when the file that holds it was changed, in ns; 0: unknown
    crc: int | None = None  # CRC-32 of the image file; None: only reading tells


class ImageSource(ABC):
    """The n images of one data set, in a fixed order; :func:`find_images` makes it. Cheap to send to worker processes.

    ``path``: as the user gave it; ``classes``: names of the classes, empty when there are none; ``labels``: (n,) int64,
    positions in ``classes``, zeros when there are none; ``fingerprint``: SHA-256 over relative names, file sizes and
    captions, so that it stays the same when the data set is moved; ``rules``: by which it was listed, see ``kinds``;
    ``passed_over``: how many images of kinds that are not read lie among the others, by suffix.
    """

    path: Path
    classes: list[str]
    labels: np.ndarray
    fingerprint: str
    rules: int = RULES
    passed_over: dict[str, int]
    origin: dict[str, str]  # etag of each shard behind an address, or commit of a data set of the hub; else empty
    # Index of the first image in each of k files that hold several images, and n: (k + 1,) int64. None: single files.
    spans: np.ndarray | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.origin = {}

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

    def caption(self, index: int) -> str:
        """The first caption of image ``index``. Raises as :meth:`captions`."""
        return self.captions(index)[0]

    @abstractmethod
    def captions(self, index: int) -> list[str]:
        """All captions of image ``index``, of which training shows one at a time.

        Raises:
            DataError: it has none, or it is unreadable; the message names the image.
        """

    def every_caption(self) -> Iterator[str]:
        """All captions of all images, in order; those that cannot be read are passed over."""
        for index in np.flatnonzero(self.captioned):
            with contextlib.suppress(DataError):
                yield from self.captions(int(index))

    @abstractmethod
    def name(self, index: int) -> str:
        """The path of image ``index``, for messages; in a zip or shard it follows the path of that file."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The file of image ``index``, not decoded. Raises DataError, which names it, when it cannot be read."""

    @abstractmethod
    def stamp(self, index: int) -> Stamp:
        """What is known of the file of image ``index`` without reading it, as of when the data set was listed."""
