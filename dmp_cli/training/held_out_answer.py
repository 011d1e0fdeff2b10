"""What measurements of the held-out loss say, in one sentence with a number, and their differences as a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report import Interval, Intervals, compare_in_words, short_names, span_in_words

Entry = Mapping[str, Any]  # the entry ``held_out`` of a line of log.jsonl, or one band of it
_CAPTION = (
    "Difference of the held-out loss from the bare network's, in % of it, with its 95 % interval; left is better."
)


def answer_of_run(lines: Sequence[tuple[int, Entry]]) -> str:
    """The sentence of a run's last measurement; empty before the first one."""
    if not lines:
        return ""
    step, entry = lines[-1]
    if not _is_compared(entry):
        return f"The held-out loss is {entry['loss']:.6g} after step {step:,}."
    return f"After step {step:,} the trained network is {_compare(entry, of='held-out loss')}"


def intervals_of_run(lines: Sequence[tuple[int, Entry]]) -> Intervals | None:
    """The differences of a run's last measurement: over all timesteps, then in each band of them."""
    if not lines or not _is_compared(lines[-1][1]):
        return None
    entry = lines[-1][1]
    named = {"all timesteps": entry} | {f"{band['from']} to {band['to']}": band for band in entry["bands"]}
    return Intervals(rows=[_interval(name, one) for name, one in named.items()], caption=_CAPTION)


def answer_of_losses(entries: Mapping[str, Entry], *, draws: int) -> str:
    """The sentence of several measurements on the same draws: of the lowest loss among them."""
    best = min(entries, key=lambda path: entries[path]["loss"])
    among = f"Best of {len(entries)}: " if len(entries) > 1 else ""
    name = dict(zip(entries, short_names(list(entries)), strict=True))[best]
    if not _is_compared(entries[best]):
        return f"{among}the held-out loss of `{name}` is {entries[best]['loss']:.6g}, {draws:,} draws."
    return f"{among}`{name}` is {_compare(entries[best], of=f'held-out loss, {draws:,} draws')}"


def intervals_of_losses(entries: Mapping[str, Entry]) -> Intervals | None:
    """The difference of each from the bare network; None where they are not compared with it."""
    names = short_names(list(entries))
    rows = [
        _interval(name, entry, hover=path)
        for name, (path, entry) in zip(names, entries.items(), strict=True)
        if _is_compared(entry)
    ]
    return Intervals(rows=rows, caption=_CAPTION) if rows else None


def _is_compared(entry: Entry) -> bool:
    return entry.get("difference") is not None and entry.get("interval") is not None


def _compare(entry: Entry, *, of: str) -> str:
    value, *ends = _in_per_cent(entry)
    return compare_in_words(value, ends, base="the bare network", of=of, higher_is_better=False, unit=" %")


def _in_per_cent(entry: Entry) -> tuple[float, float, float]:
    """The difference and the ends of its interval, in per cent of the bare network's loss."""
    factor = 100 / entry["base"] if entry["base"] else 0.0
    low, high = entry["interval"]
    return factor * entry["difference"], factor * low, factor * high


def _interval(name: str, entry: Entry, *, hover: str = "") -> Interval:
    value, low, high = _in_per_cent(entry)
    text = span_in_words(value, (low, high), unit=" %")
    return Interval(name=name, value=value, low=low, high=high, text=text, hover=hover)
