"""What a search has found, in one sentence with a number, and its gains as a chart."""

from __future__ import annotations

from typing import Any

from ..report import Interval, Intervals, compare_in_words, span_in_words
from .outcome import Outcome
from .plan import Tuning


def answer_of(plan: Tuning, outcome: Outcome, *, score: str) -> str:
    """The sentence: of the winner on what no trial saw. ``score`` is what is made better, in words."""
    count, final = len(outcome.trials), outcome.final
    if final is None:
        value = plan.sign * (outcome.best.value or 0.0)
        return f"None of {count} trials is better than the defaults, whose {score} is {value:.6g}."
    seeds = len(final.seeds)
    of = f"{score}, {seeds} new seed{'s' if seeds > 1 else ''}"
    how = compare_in_words(final.mean, final.interval, base="the defaults", of=of, higher_is_better=True)
    return f"Best of {count}: `trial {outcome.best.number}` is {how}"


def intervals_of(outcome: Outcome, *, score: str) -> Intervals | None:
    """The gain on what no trial saw, and above it what the search believed; None where nothing was measured again."""
    final = outcome.final
    if final is None:
        return None
    believed = outcome.searched
    low, high = final.interval or (final.mean, final.mean)
    text = f"{final.mean:+.3g}" if final.interval is None else span_in_words(final.mean, (low, high))
    measured: dict[str, Any] = {"name": "measured again", "value": final.mean, "low": low, "high": high, "text": text}
    rows = [
        Interval(**measured, has_ends=final.interval is not None),
        Interval(
            name="in the search", value=believed, low=believed, high=believed, text=f"{believed:+.3g}", has_ends=False
        ),
    ]
    caption = (
        f"Gain of trial {outcome.best.number} over the defaults in {score}, with its 95 % interval; right is better. "
        "The gain in the search is too large, as the best of many was chosen."
    )
    return Intervals(rows=rows, caption=caption)
