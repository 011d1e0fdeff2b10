"""The sentence and the chart of a search: what was measured again counts, what the search believed is hollow."""

from __future__ import annotations

from typing import Any, cast

import pytest

from dmp_cli.tuning.answer import answer_of, intervals_of
from dmp_cli.tuning.journal import COMPLETE, Trial
from dmp_cli.tuning.outcome import Gain, Outcome
from dmp_cli.tuning.plan import Tuning


class _Plan:
    sign = 1

    def __init__(self, objective: str) -> None:
        self.objective = objective


PLAN = cast(Tuning, _Plan("fid"))
TRIALS = [Trial(0, {}, COMPLETE, 2.0), Trial(1, {}, COMPLETE, 1.5)]


def outcome(mean: float, interval: Any) -> Outcome:
    return Outcome(TRIALS, TRIALS[1], 0.5, Gain(mean, (mean, mean), (2.0, 2.0), (1.0, 1.0), interval, "seeds"))


@pytest.mark.parametrize(
    ("mean", "interval", "answer"),
    [
        (0.2, (0.1, 0.3), "Best of 2: `trial 1` is 0.2 better than the defaults, 95 % 0.1 to 0.3 (loss, 2 new seeds)."),
        (
            -0.2,
            (-0.3, -0.1),
            "Best of 2: `trial 1` is 0.2 worse than the defaults, 95 % 0.1 to 0.3 (loss, 2 new seeds).",
        ),
        (
            0.2,
            (-0.1, 0.5),
            "Best of 2: `trial 1` is not told apart from the defaults: +0.2, 95 % -0.1 to +0.5 (loss, 2 new seeds).",
        ),
        (0.2, None, "Best of 2: `trial 1` is +0.2 from the defaults (loss, 2 new seeds; without an interval)."),
    ],
)
def test_what_was_measured_again(mean: float, interval: Any, answer: str) -> None:
    found = outcome(mean, interval)
    assert answer_of(PLAN, found, score="loss") == answer
    chart = intervals_of(PLAN, found, score="loss")
    assert chart is not None
    again, search = chart.rows
    assert again.excludes_zero == (interval is not None and interval[0] * interval[1] > 0)
    assert (search.value, search.has_ends, search.excludes_zero) == (0.5, False, False)


def test_no_trial_was_better() -> None:
    found = Outcome(TRIALS[:1], TRIALS[0], 0.0, None)
    assert answer_of(PLAN, found, score="loss") == "None of 1 trials is better than the defaults, whose loss is 2."
    assert intervals_of(PLAN, found, score="loss") is None


def test_gains_in_a_loss_are_per_cents_of_the_defaults() -> None:
    plan, found = cast(Tuning, _Plan("loss")), outcome(0.2, (0.1, 0.3))
    told = "Best of 2: `trial 1` is 10 % better than the defaults, 95 % 5 to 15 % (held-out loss, 2 new seeds)."
    assert answer_of(plan, found, score="held-out loss") == told
    chart = intervals_of(plan, found, score="held-out loss")
    assert chart is not None
    assert [row.value for row in chart.rows] == pytest.approx([10, 25])
    assert chart.rows[0].text == "+10 % (+5 to +15)"
    assert "in held-out loss in % of it" in chart.caption
