"""Run an iterator ahead of its consumer, in a thread of its own, so that data are ready when they are needed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_DEPTH = 2  # items made ahead
_POLL = 0.1  # seconds between two checks whether the consumer still wants items


class Prefetch(Generic[T]):
    """Iterates over ``source``, up to two items ahead. An error of ``source`` is raised in the place of its item.

    Use it as a context: when that is left, the thread ends and ``source`` is closed, even before its last item.
    """

    def __init__(self, source: Iterator[T]) -> None:
        self._source = source
        self._made: queue.Queue[tuple[bool, Any]] = queue.Queue(_DEPTH)  # (whether it is an item, item or error)
        self._wanted = True
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetch[T]:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._wanted = False
        with contextlib.suppress(queue.Empty):
            while True:
                self._made.get_nowait()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while True:
            is_item, value = self._made.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._source:
                if not self._offer((True, item)):
                    break
        except BaseException as problem:
            error = problem
        try:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
        except BaseException as problem:  # otherwise the consumer would wait for the next item for ever
            error = error or problem
        self._offer((False, error))

    def _offer(self, entry: tuple[bool, Any]) -> bool:
        """Hand an entry to the consumer; False when the context was left."""
        while self._wanted:
            try:
                self._made.put(entry, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False
