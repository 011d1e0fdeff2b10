"""dmp_cli.data.prefetch: items in order, made a little ahead, errors where the item would be, nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dmp_cli.data.prefetch import Prefetch


def test_items_come_in_order() -> None:
    with Prefetch(iter(range(50))) as ahead:
        assert list(ahead) == list(range(50))


def test_an_error_comes_where_the_item_would() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    with Prefetch(source()) as ahead:
        items = iter(ahead)
        assert [next(items), next(items)] == [1, 2]
        with pytest.raises(KeyError, match="three"):
            next(items)


def test_it_is_a_little_ahead_and_no_more() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    with Prefetch(source()) as ahead:
        next(iter(ahead))
        deadline = time.monotonic() + 10
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 2 <= len(made) <= 4  # one taken, two waiting, one in hand


def test_leaving_early_closes_the_source_in_its_thread() -> None:
    closed: list[str] = []

    def source() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    before = threading.active_count()
    with Prefetch(source()) as ahead:
        assert next(iter(ahead)) == 0
    assert closed == ["prefetch"]
    assert threading.active_count() == before


class Unclosable:
    """Ends after one item, and cannot be closed."""

    def __init__(self) -> None:
        self.left = [1]

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        return self.left.pop()

    def close(self) -> None:
        raise KeyError("closing")


def test_an_error_in_closing_comes_up() -> None:
    with Prefetch(Unclosable()) as ahead:
        items = iter(ahead)
        assert next(items) == 1
        with pytest.raises(KeyError, match="closing"):
            next(items)
