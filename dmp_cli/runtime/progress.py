"""How far a long computation is, for whoever watches. The engine says it, and knows no terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from .ambient import Ambient

Advance = Callable[[int, str], None]  # how much is done, and a remark
Watch = Callable[[str, int], AbstractContextManager[Advance]]  # of a title and a total; total 0: nobody knows it

_SOON, _BETWEEN = 1.0, 0.1  # seconds until a count is shown, and between two times that it is told

watched: Ambient[Watch] = Ambient()  # by whom this thread's computations are watched; None: by nobody


@contextlib.contextmanager
def tracking(title: str, total: int) -> Iterator[Advance]:
    """Context of a computation of ``total`` parts; it yields what is to be told how many are done."""
    if watched.value is None or total < 1:
        yield lambda done, remark: None
        return
    with watched.value(title, total) as advance:
        yield advance


@contextlib.contextmanager
def counting(
    title: str, total: int = 0, *, now: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """The same for what is mostly over at once, part by part: it is shown only once a second has passed.

    ``total`` 0: it is not known. What is yielded may be called for each of millions of parts.
    """
    watch, advance, due = watched.value, None, now() + _SOON
    with contextlib.ExitStack() as shown:

        def count(done: int) -> None:
            nonlocal advance, due
            if watch is None or (moment := now()) < due:
                return
            if advance is None:
                advance = shown.enter_context(watch(title, total))
            advance(done, "")
            due = moment + _BETWEEN

        yield count
