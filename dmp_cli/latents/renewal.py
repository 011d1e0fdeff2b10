"""Images that have changed since a latent store was made are encoded again, and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from filelock import FileLock, Timeout

from ..data import Damaged
from ..errors import DMPError
from ..storage import make_folder
from .encoding import Encoder
from .sources import current_sum, read_sources, source_row, suspects, write_sources
from .store import LatentStore

_WAIT = 0.2  # seconds between two checks whether another process is done


def renew_changed(
    store: LatentStore, encoder: Encoder, *, stop: Callable[[], None], warn: Callable[[str], None]
) -> None:
    """Encode again what has changed. Any number of processes may do so at once; one of them does each file.

    Raises:
        DMPError: images have changed, and the store cannot be written.
    """
    changed = 0
    for number in sorted(set(range(store.record.num_files)) - set(store.missing())):
        while True:
            stop()
            sources = read_sources(store, number)
            if sources is None or not suspects(encoder.images, store.record.span(number), sources):
                break
            try:
                make_folder(store.locks)
                lock = FileLock(store.locks / f"{number:05d}", timeout=_WAIT).acquire()
            except Timeout:
                continue  # another process does it
            except (OSError, DMPError):
                _check_unchanged(store, number, sources, encoder, stop)
                break
            with lock:
                changed += _renew(store, number, encoder, stop)
            break
    if changed:
        told = ("1 image has", "is") if changed == 1 else (f"{changed:,} images have", "are")
        warn(f"{told[0]} changed since {store.path} was made, and {told[1]} encoded again")


def _renew(store: LatentStore, number: int, encoder: Encoder, stop: Callable[[], None]) -> int:
    """Bring file ``number`` up to date; returns how many of its images have another content."""
    sources = read_sources(store, number)
    assert sources is not None
    changed, now = _compare(store, number, sources, encoder, stop)
    if not changed:
        write_sources(store, number, now)
        return 0
    try:
        encoder.renew(store, number, changed, now, stop)
    except Damaged:
        store.drop(number)  # it is made again as a whole
    return len(changed)


def _check_unchanged(
    store: LatentStore, number: int, sources: np.ndarray, encoder: Encoder, stop: Callable[[], None]
) -> None:
    """Raise DMPError when images of file ``number`` have changed; for a store that cannot be written."""
    changed, _ = _compare(store, number, sources, encoder, stop)
    if changed:
        raise DMPError(
            f"{encoder.images.name(min(changed))} has changed since {store.path} was made, which cannot be written",
            hint="Give another folder with --store-dir.",
        )


def _compare(
    store: LatentStore, number: int, sources: np.ndarray, encoder: Encoder, stop: Callable[[], None]
) -> tuple[set[int], np.ndarray]:
    """The images of file ``number`` with another content than ``sources`` (k, 3) say, and the sources as they are now.

    Only files whose size or time differ are read.
    """
    images, span, changed, now = encoder.images, store.record.span(number), set(), np.array(sources)
    for index in suspects(images, span, sources):
        stop()
        crc = current_sum(images, index)
        now[index - span.start] = source_row(images.stamp(index), crc)
        if crc != sources[index - span.start, 2]:
            changed.add(index)
    return changed, now
