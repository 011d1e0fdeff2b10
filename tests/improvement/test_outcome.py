"""Which scale is chosen, and what is said of the result: better, worse, or nothing shown."""

from __future__ import annotations

from typing import Any

import pytest

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
