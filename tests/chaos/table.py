"""The outcomes of chaos as tables of text: one line a kind, and the failures, grouped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from .cases import BAD, Outcome

_HEADS = ("kind", "cases", "own error", "same", "traceback", "wrong", "> 5 s", "> 1 GB", "slowest", "memory")


def render(outcomes: Iterable[Outcome]) -> str:
    """A line for each kind: how its cases ended, its slowest case, and the most memory that one took."""
    kinds: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        kinds[outcome.kind].append(outcome)
    rows = [_HEADS]
    for kind, found in kinds.items():
        counts = Counter(outcome.verdict for outcome in found)
        slowest, largest = max(o.seconds for o in found), max(o.megabytes for o in found)
        numbers = [str(counts[verdict]) for verdict in ("own error", "same", *BAD)]
        rows.append((kind, str(len(found)), *numbers, f"{slowest:.1f} s", f"{largest:.0f} MB"))
    if len(kinds) > 1:
        rows.append(_total(rows[1:]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(lines)


def _total(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    columns = list(zip(*rows, strict=True))
    sums = [str(sum(map(int, column))) for column in columns[1:8]]
    largest = [max(column, key=lambda cell: float(cell.split()[0])) for column in columns[8:]]
    return ("all", *sums, *largest)


def render_failures(outcomes: Iterable[Outcome], *, seed: int, shown: int = 3) -> str:
    """The failures, grouped by what failed where, the most frequent first; each with cases that show it again."""
    groups: dict[tuple[str, ...], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.failed:
            what = outcome.error or outcome.message
            groups[outcome.kind, outcome.verdict, what, outcome.where].append(outcome)
    lines = [_line(key, found, shown) for key, found in sorted(groups.items(), key=lambda g: (g[0][0], -len(g[1])))]
    if not lines:
        return "no failures"
    return "\n".join([*lines, f"again: python -m tests.chaos --seed {seed} --only KIND:NUMBER"])


def _line(key: tuple[str, ...], found: Sequence[Outcome], shown: int) -> str:
    kind, verdict, what, where = key
    ways = Counter(outcome.way for outcome in found)
    told = ", ".join(f"{way} ({count})" for way, count in ways.most_common(4)) + (" …" if len(ways) > 4 else "")
    numbers = " ".join(f"{kind}:{outcome.number}" for outcome in found[:shown])
    size = f"{max(o.seconds for o in found):.1f} s, {max(o.megabytes for o in found):.0f} MB"
    message = found[0].message.splitlines()[0][:140] if found[0].message else ""
    return f"{kind}: {len(found)} x {verdict}: {what} at {where or '?'}\n    {message}\n    {told}; {size}; {numbers}"
