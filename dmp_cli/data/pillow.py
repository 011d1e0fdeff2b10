"""Pillow as pictures are read with it: its size limit is lifted, and its warnings are collected picture by picture."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import Image


class _Heard(threading.local):
    found: list[str] | None = None  # what this thread's picture was warned of; None: it reads none


class _Changed:
    """What reading changes in Pillow and in ``warnings`` for the whole process, while any thread reads a picture."""

    def __init__(self) -> None:
        self._lock, self._readers = threading.Lock(), 0

    def enter(self) -> None:
        with self._lock:
            self._readers += 1
            if self._readers > 1:
                return
            self._limit, self._before = Image.MAX_IMAGE_PIXELS, warnings.catch_warnings()
            self._before.__enter__()
            warnings.filterwarnings("always", module="PIL")  # else only the first of two equal warnings is heard
            self._shown = warnings.showwarning
            warnings.showwarning = self._hear
            Image.MAX_IMAGE_PIXELS = None

    def leave(self) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                Image.MAX_IMAGE_PIXELS = self._limit
                self._before.__exit__(None, None, None)

    def _hear(self, message: Warning | str, *where: Any, **more: Any) -> None:
        if _heard.found is None:  # of another thread, which reads no picture
            self._shown(message, *where, **more)
        else:
            _heard.found.append(" ".join(str(message).split()))


_heard, _changed = _Heard(), _Changed()


@contextlib.contextmanager
def unhindered() -> Iterator[list[str]]:
    """Context in which Pillow reads pictures of any size; yields a list that gets the texts of its warnings."""
    before, _heard.found = _heard.found, []
    _changed.enter()
    try:
        yield _heard.found
    finally:
        _changed.leave()
        _heard.found = before
