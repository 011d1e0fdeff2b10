"""Which scale is chosen, and what is said of the result: better, worse, or nothing shown."""

from __future__ import annotations

from typing import Any

import pytest

from dmp_cli.improvement.answer import answer_of, intervals_of
from dmp_cli.improvement.choice import Choice
from dmp_cli.improvement.outcome import Outcome


def score(value: float, difference: float | None = None, *, half: float = 0.1) -> dict[str, Any]:
    interval = None if difference is None else [difference - half, difference + half]
    excludes = None if difference is None else abs(difference) > half
    told = {"value": value, "spread": 0.1, "difference": difference, "difference_spread": 0.05}
    return {**told, "interval": interval, "excludes_zero": excludes}


@pytest.mark.parametrize(
    ("metric", "base", "scores", "chosen"),
    [
        ("fid", 9.0, {0.5: 8.0, 1.0: 7.0, 2.0: 8.5}, 1.0),
        ("fid", 9.0, {0.5: 9.0, 1.0: 9.5}, None),
        ("is", 9.0, {0.5: 9.5, 1.0: 7.0}, 0.5),
        ("precision", 0.5, {0.5: 0.4, 1.0: 0.5}, None),
    ],
)
def test_the_best_scale_is_chosen(metric: str, base: float, scores: dict[float, float], chosen: float | None) -> None:
    assert Choice(metric, base, scores).scale == chosen


@pytest.mark.parametrize(
    ("metric", "difference", "said"),
    [
        ("fid", -1.0, "which is better"),
        ("fid", 1.0, "which is WORSE"),
        ("is", 1.0, "which is better"),
        ("is", -1.0, "which is WORSE"),
        ("fid", -0.05, "no gain is shown"),
    ],
)
def test_the_verdict(metric: str, difference: float, said: str) -> None:
    better = {0.5: 10.0, 1.0: 11.0} if metric == "is" else {0.5: 8.0, 1.0: 8.5}
    rows = [{"scores": {metric: score(9.0)}}, {"scores": {metric: score(9.0 + difference, difference)}}]
    outcome = Outcome(Choice(metric, 9.0, better), {"features": "inception"}, {"rows": rows})
    first, *further = outcome.sentences()
    assert said in first
    assert further == outcome.choice.untried


@pytest.mark.parametrize(
    ("metric", "difference", "said"),
    [
        ("fid", -1.0, "it is 1 better than the backbone, 95 % 0.9 to 1.1 (FID, 5,000 images)."),
        ("fid", 1.0, "it is 1 worse than the backbone, 95 % 0.9 to 1.1 (FID, 5,000 images)."),
        ("is", 1.0, "it is 1 better than the backbone, 95 % 0.9 to 1.1 (IS, 5,000 images)."),
        ("fid", -0.05, "it is not told apart from the backbone: -0.05, 95 % -0.15 to +0.05 (FID, 5,000 images)."),
    ],
)
def test_the_answer(metric: str, difference: float, said: str) -> None:
    better = {0.5: 10.0, 1.0: 11.0} if metric == "is" else {0.5: 8.5, 1.0: 8.0}
    rows = [{"scores": {metric: score(9.0)}}, {"scores": {metric: score(9.0 + difference, difference)}}]
    outcome = Outcome(Choice(metric, 9.0, better), {"features": "inception"}, {"rows": rows})
    assert answer_of(outcome, num_images=5000) == f"Sampled with `W = 1`, {said}"
    chart = intervals_of(outcome)
    assert chart is not None
    assert [(row.name, row.value) for row in chart.rows] == [("W = 1", difference)]
    assert ("right is better" in chart.caption) == (metric == "is")


def test_where_no_scale_was_better_the_chart_shows_all_that_were_tried() -> None:
    rows = [{"scores": {"fid": score(9.0)}}, *({"scores": {"fid": score(9.0 + by, by)}} for by in (0.5, 2.0))]
    outcome = Outcome(Choice("fid", 9.0, {0.5: 9.5, 2.0: 11.0}), {"features": "digits", "rows": rows}, None)
    told = "No scale W of 0.5, 2 is better than the backbone, whose FD (digits) is 9."
    assert answer_of(outcome, num_images=60) == told
    chart = intervals_of(outcome)
    assert chart is not None
    assert [(row.name, row.value) for row in chart.rows] == [("W = 0.5", 0.5), ("W = 2", 2.0)]
