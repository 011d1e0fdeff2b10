"""The Markdown report: its table, its numbers, and its sentences about differences and their intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.evaluation.results import Evaluation, Row, Score, plus_minus, render_scores, score_table, verdicts_of
from dmp_cli.evaluation.scoring import evaluate
from dmp_cli.evaluation.statistics import Provenance

from .conftest import config_for, write_folder


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
        (-0.4, (-0.6, -0.2), "FD (pixels) of patched is lower (better) than that of base: ", True),
        (0.4, (0.2, 0.6), "FD (pixels) of patched is higher (worse) than that of base: ", True),
        (0.1, (-0.1, 0.3), "contains zero, so a difference from base is not shown.", False),
        (0.0, (0.0, 0.0), "contains zero", False),
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


def test_the_table(folders: dict[str, Path], tmp_path: Path) -> None:
    bar = write_folder(tmp_path / "a|b", 40, seed=8)
    found = evaluate(config_for([folders["near"], bar], folders["reference"], metrics=("fid", "kid"), bootstrap=4))
    lines = render_scores(found).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| samples | images | FD (pixels) | Δ FD (pixels) | KD (pixels) | Δ KD (pixels) |"
    assert table[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    base, second = (row.replace("\\|", "¦").split(" | ") for row in table[2:])
    columns, rows = score_table(found)
    assert [len(row) for row in rows] == [len(columns)] * 2
    assert rows[1][0] == str(bar)  # the Markdown escape is Markdown's own
    fid = found.rows[0].scores["fid"]
    assert base[:4] == [f"| {folders['near']}", "40", plus_minus(fid.value, fid.spread), "base"]
    assert second[0] == f"| {tmp_path}/a¦b"
    fid = found.rows[1].scores["fid"]
    assert second[3] == plus_minus(fid.difference, fid.difference_spread, signed=True)
    assert second[4].endswith("(m = 20)")
    assert any("4 resamples" in line for line in lines)
    assert any(str(folders["reference"]) in line and "60 images" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "spread", "signed", "text"),
    [
        (5.8712, 0.0312, False, "5.871 ± 0.031"),
        (5.8712, None, False, "5.871"),
        (0.0, 0.0, True, "+0 ± 0"),
        (-1.234, 0.5, True, "-1.23 ± 0.50"),
        (123.4, 45.6, False, "123 ± 46"),
        (-1e-9, 0.0018, True, "+0.0000 ± 0.0018"),
        (-0.0000027, 0.0000072, False, "-2.70e-06 ± 7.2e-06"),
    ],
)
def test_numbers_are_written_to_their_spread(value: float, spread: float | None, signed: bool, text: str) -> None:
    assert plus_minus(value, spread, signed=signed) == text
