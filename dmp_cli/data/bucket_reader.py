"""Reads each image at the size of its bucket."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .buckets import Buckets
from .framing import Cut
from .readers import LiveReader, Reader


class BucketReader:
    """Reads the values of images from a reader for each bucket, such as its latent store; see :class:`Reader`.

    Batches that are read through it hold one bucket each.
    """

    def __init__(self, buckets: Buckets, readers: Sequence[Reader], *, random_crop: bool = False) -> None:
        """``random_crop``: whether training shows random parts of pictures, which only readers of files give."""
        self.buckets, self.random_crop, self._readers = buckets, random_crop, readers

    def read(self, index: int, *, mirrored: bool, cut: Cut | None = None) -> np.ndarray:
        """See :class:`Reader`; ``cut``: which part of the picture, instead of its centre."""
        reader, rank = self._readers[self.buckets.bucket[index]], int(self.buckets.rank[index])
        if cut is None:
            return reader.read(rank, mirrored=mirrored)
        assert isinstance(reader, LiveReader), "a store holds one part of each picture"
        return reader.read(rank, mirrored=mirrored, cut=cut)

    def take_remarks(self) -> list[str]:
        """See :class:`Reader`."""
        return [remark for reader in self._readers for remark in reader.take_remarks()]
