"""The processes that compute the features of a scoring together: those of a launcher, or those of ``--jobs``.

Each makes its share of the files of :mod:`kept_features`; the first process then has all of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import DMPError
from ..runtime import World
from .extract import Measurement

if TYPE_CHECKING:
    from .helpers import Helpers

T = TypeVar("T")

_WAIT = 0.05  # seconds between two looks at the files that others are making


class _OtherFailedError(DMPError):
    """Another process of the run has failed; it says why itself."""

    silent = True


class Crew:
    """Who measures: this process alone, one of the processes of a launcher, or this process with its helpers."""

    def __init__(
        self, folder: Path | None = None, *, world: World | None = None, helpers: Helpers | None = None
    ) -> None:
        """``folder``: where features are kept while they are computed; one process alone does without."""
        self.folder, self._world, self._helpers = folder, world or World(), helpers
        self._failed = None if folder is None else folder / "failed"  # there: another process has failed

    def first(self, make: Callable[[], T]) -> T | None:
        """What ``make`` returns in the first process; None in the others. All raise the DMPError that it raised."""
        made: list[T] = []
        self._world.tell(lambda: made.append(make()))
        return made[0] if made else None

    def fill(self, measurements: Sequence[Measurement]) -> None:
        """Compute this process' share of the features, and wait until the others have computed theirs.

        Raises:
            DMPError: of any of the processes.
        """
        if self._helpers is None:
            if self._world.size > 1:
                self._world.each(lambda: self._fill_share(measurements))
            return
        fill_share(measurements, self.folder, share=(0, self._helpers.total), stop=self._helpers.check)
        for kept in (one.keep_in(self.folder) for one in measurements):
            while kept is not None and self._helpers.are_working() and kept.missing():
                time.sleep(_WAIT)
                self._helpers.check()

    def _fill_share(self, measurements: Sequence[Measurement]) -> None:
        share = self._world.rank, self._world.size
        try:
            with contextlib.suppress(_OtherFailedError):  # which says it itself, once all meet
                fill_share(measurements, self.folder, share=share, stop=self._check_others)
        except DMPError:
            if self._failed is not None:
                with contextlib.suppress(OSError):
                    self._failed.parent.mkdir(parents=True, exist_ok=True)
                    self._failed.touch()
            raise

    def _check_others(self) -> None:
        if self._failed is not None and self._failed.exists():
            raise _OtherFailedError("another process of this run has failed")


def fill_share(
    measurements: Sequence[Measurement], folder: Path | None, *, share: tuple[int, int], stop: Callable[[], None]
) -> None:
    """Make one share (k, n) of the kept files of these measurements; ``stop`` is called between batches."""
    for one in measurements:
        kept = one.keep_in(folder)
        if kept is not None:
            one.fill(kept, share=share, stop=stop)


def known(value: T | None) -> T:
    """``value``, which the first process always has."""
    assert value is not None
    return value
