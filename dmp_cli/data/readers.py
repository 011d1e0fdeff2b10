"""What reads the values of one image: its file, decoded and cropped when it is asked for; or a store of latents."""

from __future__ import annotations

import math
import zlib
from typing import Protocol

import numpy as np

from ..config import MAX_PIXELS, sides_of
from .decoding import center_crop, decode
from .framing import Cut
from .source import ImageSource

KEPT_BYTES = 1 << 28  # decoded images that one process may keep


class Damaged(Exception):
    """Raised by a reader whose own files, not the user's images, are damaged."""


class Reader(Protocol):
    """Reads the values of an image."""

    def read(self, index: int, *, mirrored: bool) -> np.ndarray:
        """Image ``index``, (C, H, W).

        Raises:
            DataError: the image cannot be read.
            Damaged: the reader's own files are damaged.
        """

    def take_remarks(self) -> list[str]:
        """What Pillow warned of since the last call, with the names of the images."""


class LiveReader:
    """Reads, decodes and crops an image file when it is asked for, (C, H, W) uint8.

    ``keeps``: whether decoded images are kept, where all of them fit in memory; ``max_pixels``: of the largest image;
    ``sums``: whether the CRC-32 of each file is kept until :meth:`take_sum`.
    """

    def __init__(
        self,
        images: ImageSource,
        *,
        image_size: int | str,
        channels: int,
        keeps: bool = True,
        sums: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._images, self._image_size, self._channels = images, image_size, channels
        self._max_pixels = max_pixels
        self._remarks: list[str] = []
        self._sums: dict[int, int] | None = {} if sums else None
        self._keeps = keeps and fits_in_memory(images, image_size=image_size, channels=channels)
        self._kept: dict[int, np.ndarray] = {}  # small data sets are decoded once, not once per epoch

    def read(self, index: int, *, mirrored: bool, cut: Cut | None = None) -> np.ndarray:
        """See :class:`Reader`; ``cut``: which part of the picture, instead of its centre."""
        pixels = self._kept.get(index) if cut is None else None
        if pixels is None:
            pixels = self._decode(index, cut)
            if self._keeps and cut is None:
                self._kept[index] = pixels
        return np.ascontiguousarray(pixels[..., ::-1]) if mirrored else pixels

    def take_remarks(self) -> list[str]:
        """See :class:`Reader`."""
        return [self._remarks.pop(0) for _ in range(len(self._remarks))]  # other threads may add some meanwhile

    def take_sum(self, index: int) -> int:
        """The CRC-32 of the file of image ``index``, which was read last; -1: it could not be read."""
        assert self._sums is not None
        return self._sums.pop(index, -1)

    def _decode(self, index: int, cut: Cut | None) -> np.ndarray:
        data = self._images.read(index)
        if self._sums is not None:
            self._sums[index] = zlib.crc32(data)
        image = decode(
            data,
            channels=self._channels,
            name=self._images.name(index),
            max_pixels=self._max_pixels,
            remarks=self._remarks,
        )
        part = np.asarray(center_crop(image, image_size=self._image_size, cut=cut))  # (H, W) or (H, W, C)
        return np.ascontiguousarray(part.reshape(*part.shape[:2], self._channels).transpose(2, 0, 1))  # (C, H, W)


def fits_in_memory(images: ImageSource, *, image_size: int | str, channels: int) -> bool:
    """Whether all decoded images together are small enough for a process to keep them (256 MiB)."""
    return len(images) * channels * math.prod(sides_of(image_size)) <= KEPT_BYTES
