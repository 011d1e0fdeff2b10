"""Which images a step shows where a batch holds images of one bucket: a pure function of (seed, step).

n_b images of bucket b, B images a batch.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from ..runtime import randomness
from .buckets import Buckets
from .shuffling import Order, Place


class BucketOrder:
    """Each bucket has its own order, cut into batches; a batch may continue into the bucket's next epoch.

    By the end of epoch e the batches of a bucket are the first floor((e + 1) n_b / B), so that what is left of a bucket
    is shown first in its next epoch. Which bucket is next is random; its batches come in its own order, so that those
    of images that share files stay within few files at a time.
    """

    def __init__(self, buckets: Buckets, *, batch_size: int, seed: int, spans: np.ndarray | None = None) -> None:
        self._batch_size, self._seed = batch_size, seed
        self._counts = [len(members) for members in buckets.members]
        self._members = buckets.members
        self._orders = [
            Order(
                len(members),
                batch_size=batch_size,
                seed=seed,
                spans=None if spans is None else np.unique(np.searchsorted(members, spans)),
                purpose=f"epoch-{sides.in_words}",
            )
            for members, sides in zip(buckets.members, buckets.sizes, strict=True)
        ]
        self._epoch = -1
        self._batches: Sequence[tuple[int, int]] = ()  # (bucket, number of its batch) of the current epoch, in order

    def places(self, step: int, *, share: range | None = None) -> list[Place]:
        """(epoch, image index) of each image of the step, as :meth:`Order.places`; all images are of one bucket."""
        bucket, batch = self._batch(step)
        members = self._members[bucket]
        return [(epoch, int(members[place])) for epoch, place in self._orders[bucket].places(batch, share=share)]

    def _before(self, epoch: int) -> int:
        """How many batches come before an epoch."""
        return sum(epoch * count // self._batch_size for count in self._counts)

    def _batch(self, step: int) -> tuple[int, int]:
        """The bucket of a step, and the number of the batch among those of the bucket."""
        enough = range((step + 1) * self._batch_size // max(self._counts) + 2)  # the largest bucket alone fills these
        epoch = bisect.bisect_right(enough, step, key=self._before) - 1
        if epoch != self._epoch:
            self._batches, self._epoch = self._shuffle(epoch), epoch
        return self._batches[step - self._before(epoch)]

    def _shuffle(self, epoch: int) -> list[tuple[int, int]]:
        """The batches of an epoch in the order in which they are shown: (bucket, number of its batch)."""
        size = self._batch_size
        own = [iter(range(epoch * count // size, (epoch + 1) * count // size)) for count in self._counts]
        turns = np.repeat(np.arange(len(own)), [(epoch + 1) * n // size - epoch * n // size for n in self._counts])
        chosen = randomness.permutation("bucket-batches", len(turns), seed=self._seed, step=epoch)
        return [(int(bucket), next(own[bucket])) for bucket in turns[chosen]]
