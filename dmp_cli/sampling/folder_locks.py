"""Who may write what in a folder of samples that several processes fill at once.

Each part of the images has one owner. What all parts share is written, and what a kill left half-written of it is
removed, only by a process that holds the lock ``.lock``.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from ..data import index_of
from ..storage import PARTIAL, cannot_write, check_unowned, is_of_owner, own, remove_partials, whole_name
from .part import Part

LOCK = ".lock"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class FolderLocks:
    """The locks of one folder of samples."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Context that holds the lock for files that all parts share.

        A folder that this user cannot write is not locked: reading it needs no lock.
        """
        lock: FileLock | None = FileLock(self.path / LOCK)
        assert lock is not None
        try:
            lock.acquire()
        except OSError as error:
            if error.errno is None:  # it took too long, for a caller who does not wait
                raise
            if error.errno not in _READ_ONLY:
                raise cannot_write(self.path, error) from error
            lock = None
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def own(self, part: Part) -> contextlib.AbstractContextManager[None]:
        """Context in which this process alone draws ``part``. Raises ConfigError, which names the other process."""
        return own(self.path, command="dmp sample", part=f"-{part.number + 1}-of-{part.total}")

    def check_idle(self) -> None:
        """Raise ConfigError if another process is drawing any part."""
        check_unowned(self.path)

    def remove_shared_halves(self) -> None:
        """Remove what a kill left half-written of files that all parts share, whose lock this process holds."""

        def is_shared(name: str) -> bool:
            return _half_image(name) is None and not is_of_owner(whole_name(name) or "")  # notes are written unlocked

        with contextlib.suppress(OSError):  # on a read-only disk they stay
            remove_partials(self.path, wanted=is_shared)

    def remove_own_halves(self, part: Part, *, batch_size: int) -> None:
        """Remove images of ``part`` that a kill left half-written; another part may be writing the others now."""

        def is_own(name: str) -> bool:
            index = _half_image(name)
            return index is not None and part.draws(index, batch_size=batch_size)

        with contextlib.suppress(OSError):
            remove_partials(self.path, wanted=is_own)


def may_be_left(name: str) -> bool:
    """Whether a file of this name may be in a folder that is not claimed yet: a lock, or what a kill left behind."""
    return name == LOCK or name.endswith(PARTIAL) or is_of_owner(name)


def _half_image(name: str) -> int | None:
    """The index of the image, or of the latent, that a partial file would have become; None: it is of another kind."""
    whole = whole_name(name) if name.endswith(PARTIAL) else None
    return index_of(whole) if whole is not None else None
