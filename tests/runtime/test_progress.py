"""What the engine tells whoever watches."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from dmp_cli.runtime import Advance, tracking, watched


def test_it_is_told_title_total_and_each_part() -> None:
    told: list[tuple[object, ...]] = []

    @contextlib.contextmanager
    def watch(title: str, total: int) -> Iterator[Advance]:
        told.append((title, total))
        yield lambda done, remark: told.append((done, remark))
        told.append(("end",))

    with tracking("before", 3) as advance:
        advance(1, "nobody hears it")
    with watched.given(watch), tracking("outer", 2) as outer:
        with tracking("inner", 1) as inner:
            inner(1, "")
        outer(1, "half")
        with tracking("nothing to do", 0):
            pass
        other = threading.Thread(target=lambda: tracking("elsewhere", 5).__enter__())
        other.start()
        other.join()
    assert told == [("outer", 2), ("inner", 1), (1, ""), ("end",), (1, "half"), ("end",)]
