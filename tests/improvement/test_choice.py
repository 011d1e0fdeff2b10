"""The choice of a scale: the best score, none at all, and where a scale that was not tried may be better."""

from __future__ import annotations

import pytest

from dmp_cli.improvement.choice import Choice


@pytest.mark.parametrize(
    ("metric", "scores", "scale", "further"),
    [
        ("fid", {0.5: 4.3, 1.0: 4.4, 2.0: 7.4}, 0.5, ["smaller"]),
        ("fid", {0.5: 4.4, 1.0: 4.3, 2.0: 7.4}, 1.0, []),
        ("fid", {0.5: 4.9, 1.0: 4.4, 2.0: 4.3}, 2.0, ["larger"]),
        ("fid", {1.0: 4.3}, 1.0, ["smaller", "larger"]),
        ("fid", {0.5: 5.3, 1.0: 5.2}, None, []),
        ("precision", {0.5: 5.3, 1.0: 5.2}, 0.5, ["smaller"]),
    ],
)
def test_the_best_scale_and_where_a_better_one_may_be(
    metric: str, scores: dict[float, float], scale: float | None, further: list[str]
) -> None:
    choice = Choice(metric, 5.2, scores)
    assert choice.scale == scale
    assert [word for line in choice.untried for word in ("smaller", "larger") if word in line] == further
