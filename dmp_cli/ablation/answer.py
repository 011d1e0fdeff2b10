"""What an ablation says, in one sentence with a number, and its differences as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..evaluation import HIGHER_IS_BETTER
from ..report import Interval, Intervals, compare_in_words, span_in_words
from .table import about_few, name_of


def interval_of(arm: dict[str, Any], metric: str) -> Sequence[float] | None:
    """The 95 % interval of an arm's difference from the base; None: there is none."""
    return (arm["scores"][metric].get("difference") or {}).get("interval")


def answer_of(report: dict[str, Any]) -> str:
    """One sentence on the first score: of the best arm beside the base."""
    base, *arms = report["arms"]
    metric = next(iter(base["scores"]))
    sign = -1 if metric in HIGHER_IS_BETTER else 1
    best = min(arms, key=lambda arm: sign * arm["scores"][metric]["mean"])
    count = len(report["seeds"])
    enough = ", too few" if metric == "fid" and about_few(report) is not None else ""
    of = f"{name_of(report, metric)}, {report['num_images']:,} images{enough}, {count} seed{'s' if count > 1 else ''}"
    paired = best["scores"][metric].get("difference")
    if paired is None:
        return ""
    how: dict[str, Any] = {"base": f"`{base['title']}`", "of": of, "higher_is_better": sign < 0}
    among = f"Best of {len(arms)}: " if len(arms) > 1 else ""
    return f"{among}`{best['title']}` is {compare_in_words(paired['mean'], paired['interval'], **how)}"


def intervals_of(report: dict[str, Any]) -> Intervals | None:
    """The differences of the arms in the first score."""
    base, *arms = report["arms"]
    metric = next(iter(base["scores"]))
    rows = [
        Interval(
            name=arm["title"],
            value=(mean := arm["scores"][metric]["difference"]["mean"]),
            low=found[0],
            high=found[1],
            text=span_in_words(mean, found),
        )
        for arm in arms
        if (found := interval_of(arm, metric)) is not None
    ]
    side = "right" if metric in HIGHER_IS_BETTER else "left"
    caption = f"Difference of {name_of(report, metric)} from `{base['title']}`, 95 % interval; {side} is better."
    return Intervals(rows=rows, caption=caption) if rows else None
