"""Paired timings: each round times all works, in alternating order, and takes ratios of times within the round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Work = Callable[[], object]
Clock = Callable[[], float]
Row = tuple[str, str, str]  # what is measured, the result, the target
Pair = tuple[str, str]  # what is measured, the result; a peer is no target


def ratios(
    works: dict[str, Work], *, base: str, rounds: int, warmup: int = 1, clock: Clock = time.process_time
) -> dict[str, list[float]]:
    """For each work, its time over that of ``base`` in the same round, one ratio per round. Default: processor time."""
    for _ in range(warmup):
        for work in works.values():
            work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for index in range(rounds):
        order = list(works) if index % 2 == 0 else list(works)[::-1]
        seconds = {name: seconds_of(works[name], clock) for name in order}
        for name in works:
            found[name].append(seconds[name] / seconds[base])
    return found


def seconds_of(work: Work, clock: Clock) -> float:
    """Time of one call in seconds."""
    start = clock()
    work()
    return clock() - start


def summary(values: list[float]) -> str:
    """Median and quartiles, as text. With one or two values: the first, and the smallest and largest."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 2 else (min(values), values[0], max(values))
    return f"{middle:.4f} ({low:.4f} to {high:.4f})"
