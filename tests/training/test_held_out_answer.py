"""The sentence and the chart of the held-out loss, against per cents computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dmp_cli.training.held_out_answer import answer_of_losses, answer_of_run, intervals_of_losses, intervals_of_run
from dmp_cli.training.held_out_page import build_held_out_page, build_loss_page


def entry(difference: float | None, *, half: float = 0.01, **more: Any) -> dict[str, Any]:
    """A measurement beside a bare network whose loss is 0.5."""
    if difference is None:
        return {"loss": 0.4, **more}
    ends = [difference - half, difference + half]
    return {"loss": 0.5 + difference, "base": 0.5, "difference": difference, "interval": ends, **more}


def banded(difference: float | None) -> dict[str, Any]:
    bands = [entry(difference, **{"from": 0, "to": 499}), entry(difference, **{"from": 500, "to": 999})]
    return entry(difference, bands=bands)


@pytest.mark.parametrize(
    ("difference", "answer"),
    [
        (
            -0.05,
            "After step 20 the trained network is 10 % better than the bare network, 95 % 8 to 12 % (held-out loss).",
        ),
        (
            0.05,
            "After step 20 the trained network is 10 % worse than the bare network, 95 % 8 to 12 % (held-out loss).",
        ),
        (
            0.005,
            "After step 20 the trained network is not told apart from the bare network: +1 %, 95 % -1 to +3 % "
            "(held-out loss).",
        ),
        (None, "The held-out loss is 0.4 after step 20."),
    ],
)
def test_a_run(difference: float | None, answer: str) -> None:
    lines = [(0, banded(0.0)), (20, banded(difference))]
    page = build_held_out_page(lines, method="dmp")
    assert page.answer == answer
    if difference is None:
        assert page.intervals is None
        return
    assert page.intervals is not None
    whole, low, high = page.intervals.rows
    assert (whole.name, low.name, high.name) == ("all timesteps", "0 to 499", "500 to 999")
    assert whole.value == pytest.approx(200 * difference)
    assert (whole.low, whole.high) == pytest.approx((200 * difference - 2, 200 * difference + 2))


def test_before_the_first_measurement() -> None:
    assert answer_of_run([]) == ""
    assert intervals_of_run([]) is None
    assert build_held_out_page([], method="dmp").answer == ""


def test_several_patches_have_short_names_and_their_paths_on_hover() -> None:
    entries = {"runs/a/patch.safetensors": banded(0.05), "runs/b/patch.safetensors": banded(-0.05)}
    page = build_loss_page(entries, {"val_draws": 1000, "images": 9, "val_data": "abc"})
    assert page.answer == (
        "Best of 2: `b/patch.safetensors` is 10 % better than the bare network, 95 % 8 to 12 % "
        "(held-out loss, 1,000 draws)."
    )
    chart, table = intervals_of_losses(entries), page.sections[0].table
    assert chart is not None
    assert table is not None
    assert (
        [row.name for row in chart.rows]
        == [row[0] for row in table.rows]
        == ["a/patch.safetensors", "b/patch.safetensors"]
    )
    assert [row.hover for row in chart.rows] == list(table.hover) == list(entries)
    assert page.sections[1].heading == "By timestep: a/patch.safetensors"


def test_losses_without_a_bare_network() -> None:
    found = {"a": entry(None), "b": entry(None)}
    assert answer_of_losses(found, draws=10) == "Best of 2: the held-out loss of `a` is 0.4, 10 draws."
    assert intervals_of_losses(found) is None
