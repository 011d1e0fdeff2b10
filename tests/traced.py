"""How many bytes Python and numpy hold while something works; what is mapped from files is not counted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable


def peak(work: Callable[[], object]) -> int:
    """The most bytes that ``work`` holds at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def growth(work: Callable[[int], Callable[[], object]], few: int, many: int) -> float:
    """Bytes that each thing takes beyond the first ``few``; ``work`` gives what works on a number of things."""
    return (peak(work(many)) - peak(work(few))) / (many - few)
