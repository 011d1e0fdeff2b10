"""How far a long computation is, for whoever watches. The engine says it, and knows no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from .ambient import Ambient

Advance = Callable[[int, str], None]  # how much is done, and a remark
Watch = Callable[[str, int], AbstractContextManager[Advance]]  # of a title and a total

watched: Ambient[Watch] = Ambient()  # by whom this thread's computations are watched; None: by nobody


@contextlib.contextmanager
def tracking(title: str, total: int) -> Iterator[Advance]:
    """Context of a computation of ``total`` parts; it yields what is to be told how many are done."""
    if watched.value is None or total < 1:
        yield lambda done, remark: None
        return
    with watched.value(title, total) as advance:
        yield advance
