"""Reads each image at the size of its bucket."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .buckets import Buckets
from .readers import Reader


class BucketReader:
    """Reads the values of images from a reader for each bucket, such as its latent store; see :class:`Reader`.

    Batches that are read through it hold one bucket each.
    """

    def __init__(self, buckets: Buckets, readers: Sequence[Reader]) -> None:
        self.buckets, self._readers = buckets, readers

    def read(self, index: int, *, mirrored: bool) -> np.ndarray:
        """See :class:`Reader`."""
        buckets = self.buckets
        return self._readers[buckets.bucket[index]].read(int(buckets.rank[index]), mirrored=mirrored)

    def take_remarks(self) -> list[str]:
        """See :class:`Reader`."""
        return [remark for reader in self._readers for remark in reader.take_remarks()]
