"""What a search has found, in one sentence with a number, and its gains as a chart."""

from __future__ import annotations

from typing import Any

from ..report import Interval, Intervals, compare_in_words, span_in_words
from .outcome import Outcome
from .plan import LOSS, Tuning


def answer_of(plan: Tuning, outcome: Outcome, *, score: str) -> str:
    """The sentence: of the winner on what no trial saw. ``score`` is what is made better, in words."""
    count, final = len(outcome.trials), outcome.final
    if final is None:
        value = plan.sign * (outcome.best.value or 0.0)
        return f"None of {count} trials is better than the defaults, whose {score} is {value:.6g}."
    seeds = len(final.seeds)
    of = f"{score}, {seeds} new seed{'s' if seeds > 1 else ''}"
    factor, unit = _in_per_cent(plan, outcome)
    ends = None if final.interval is None else [factor * end for end in final.interval]
    better: dict[str, Any] = {"base": "the defaults", "of": of, "higher_is_better": True, "unit": unit}
    how = compare_in_words(factor * final.mean, ends, **better)
    return f"Best of {count}: `trial {outcome.best.number}` is {how}"


def intervals_of(plan: Tuning, outcome: Outcome, *, score: str) -> Intervals | None:
    """The gain on what no trial saw, and above it what the search believed; None where nothing was measured again."""
    final = outcome.final
    if final is None:
        return None
    factor, unit = _in_per_cent(plan, outcome)
    believed, mean = factor * outcome.searched, factor * final.mean
    low, high = (factor * end for end in final.interval or (final.mean, final.mean))
    text = f"{mean:+.3g}{unit}" if final.interval is None else span_in_words(mean, (low, high), unit=unit)
    measured: dict[str, Any] = {"name": "measured again", "value": mean, "low": low, "high": high, "text": text}
    rows = [
        Interval(**measured, has_ends=final.interval is not None),
        Interval(
            name="in the search",
            value=believed,
            low=believed,
            high=believed,
            text=f"{believed:+.3g}{unit}",
            has_ends=False,
        ),
    ]
    per_cent = " in % of it" if unit else ""
    caption = (
        f"Gain of trial {outcome.best.number} over the defaults in {score}{per_cent}, with its 95 % interval; right is "
        "better. The gain in the search is too large, as the best of many was chosen."
    )
    return Intervals(rows=rows, caption=caption)


def _in_per_cent(plan: Tuning, outcome: Outcome) -> tuple[float, str]:
    """What gains are multiplied by, and their unit: per cent of the defaults' loss, where it is a loss."""
    assert outcome.final is not None
    loss = sum(outcome.final.defaults) / len(outcome.final.defaults)
    return (100 / loss, " %") if plan.objective == LOSS and loss else (1.0, "")
