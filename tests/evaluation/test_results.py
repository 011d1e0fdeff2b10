"""dmp_cli.evaluation.results: what a report says in words of a difference and its interval."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_cli.evaluation.results import Evaluation, Row, Score, render_scores, verdicts_of
from dmp_cli.evaluation.scoring import _interval
from dmp_cli.evaluation.statistics import Provenance


def evaluation_of(difference: float, interval: tuple[float, float] | None, *, score: str = "fid") -> Evaluation:
    known = Provenance(count=100)
    base = Score(value=5.0, spread=0.1, difference=None, difference_spread=None)
    other = Score(value=5.0 + difference, spread=0.1, difference=difference, difference_spread=0.1, interval=interval)
    rows = tuple(
        Row(samples=name, count=100, provenance=known, scores={score: found}, made=None)
        for name, found in (("base", base), ("patched", other))
    )
    return Evaluation(
        rows=rows,
        reference="images",
        reference_provenance=known,
        features="pixels",
        features_digest="none",
        features_width=3,
        bootstrap=10,
        seed=0,
        warnings=(),
        versions={},
    )


@pytest.mark.parametrize(
    ("difference", "interval", "expected", "excludes"),
    [
        (-0.4, (-0.6, -0.2), "FID of patched is lower (better) than that of base: ", True),
        (0.4, (0.2, 0.6), "FID of patched is higher (worse) than that of base: ", True),
        (0.1, (-0.1, 0.3), "holds zero, so it is not shown to differ from base.", False),
        (0.0, (0.0, 0.0), "holds zero", False),
    ],
)
def test_it_says_plainly_whether_zero_is_excluded(
    difference: float, interval: tuple[float, float], expected: str, excludes: bool
) -> None:
    evaluation = evaluation_of(difference, interval)
    (verdict,) = verdicts_of(evaluation)
    assert expected in verdict
    assert f"{interval[0]:+.3g} to {interval[1]:+.3g}" in verdict
    assert verdict in render_scores(evaluation)
    base, other = evaluation.to_json()["rows"]
    assert base["scores"]["fid"]["excludes_zero"] is None
    assert other["scores"]["fid"]["excludes_zero"] is excludes


def test_for_some_scores_higher_is_better() -> None:
    (higher,) = verdicts_of(evaluation_of(0.4, (0.2, 0.6), score="recall"))
    assert "Recall of patched is higher (better) than that of base: " in higher
    (lower,) = verdicts_of(evaluation_of(-0.4, (-0.6, -0.2), score="is"))
    assert "IS of patched is lower (worse) than that of base: " in lower


def test_without_an_interval_nothing_is_said() -> None:
    assert verdicts_of(evaluation_of(0.3, None)) == []


def test_the_interval_by_hand() -> None:
    # four resamples around a difference of 2: standard error 2/sqrt(3) * ..., Student's t with three degrees of freedom
    differences = np.array([2.0, 1.0, 3.0, 1.0, 3.0])
    spread = np.sqrt(4 / 3)
    assert _interval(differences) == pytest.approx((2 - 3.18245 * spread, 2 + 3.18245 * spread), rel=1e-5)
    assert _interval(np.array([2.0, 1.0])) is None
