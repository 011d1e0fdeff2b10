"""Which images a step shows: a pure function of (seed, step), so that a position in the data is one number."""

from __future__ import annotations

import numpy as np

from ..runtime import randomness

Place = tuple[int, int]  # (epoch, index of the image)
_WINDOW = 8  # shards whose images are shuffled together


class Order:
    """Position q = step * batch_size + k of the stream lies in epoch q // n, at q % n; an epoch shows each image once.

    Images in files of their own are shuffled over the whole epoch. Images that share files (``spans``, see
    ``ImageSource``) are shuffled within windows of eight shards, which are drawn again in every epoch, so that reading
    stays within few files at a time. Any step may be asked for, in any process: it costs one epoch's permutation.
    """

    def __init__(
        self, count: int, *, batch_size: int, seed: int, spans: np.ndarray | None = None, purpose: str = "epoch"
    ) -> None:
        """``purpose`` tells its random numbers from those of other orders."""
        self._purpose = purpose
        self._count, self._batch_size, self._seed, self._spans = count, batch_size, seed, spans
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)  # of the current epoch alone, (n,)

    def places(self, step: int, *, share: range | None = None) -> list[Place]:
        """(epoch, image index) of each image of the step, or of those whose position in the batch is in ``share``.

        A batch may continue into the next epoch.
        """
        first = step * self._batch_size
        return [self._place(first + place) for place in share or range(self._batch_size)]

    def _place(self, position: int) -> Place:
        epoch, offset = divmod(position, self._count)
        if epoch != self._epoch:
            self._permutation, self._epoch = self._permute(epoch), epoch
        return epoch, int(self._permutation[offset])

    def _permute(self, epoch: int) -> np.ndarray:
        if self._spans is None:
            return randomness.permutation(self._purpose, self._count, seed=self._seed, step=epoch)
        starts, ends = self._spans[:-1], self._spans[1:]
        shards = randomness.permutation(f"{self._purpose}-shards", len(starts), seed=self._seed, step=epoch)
        windows = []
        for first in range(0, len(shards), _WINDOW):
            images = np.concatenate([np.arange(starts[k], ends[k]) for k in shards[first : first + _WINDOW]])
            draw = randomness.generator(self._purpose, seed=self._seed, step=epoch, index=first)
            windows.append(draw.permutation(images))
        return np.concatenate(windows)
