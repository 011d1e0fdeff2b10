"""The page of an evaluation: it shows every number of the table and a picture, and contacts no host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmp_cli.evaluation.metrics import title_of
from dmp_cli.evaluation.page import build_score_page
from dmp_cli.evaluation.results import Evaluation, score_table
from dmp_cli.report.html import render
from dmp_cli.report.wording import short_names

from .conftest import config_of


def test_the_page_says_what_the_table_says(evaluation: Evaluation) -> None:
    page = render(build_score_page(evaluation, config_of(evaluation)))
    columns, rows = score_table(evaluation)
    for text in (*columns, *(cell for row in rows for cell in row if cell != "base"), "ddim", "Warning: "):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('src="data:image/png;base64,') == 1


def with_scores(evaluation: Evaluation, metric: str, **changes: Any) -> Evaluation:
    """The same evaluation, in which the second folder's only score is changed."""
    base, other = (row.scores["fid"] for row in evaluation.rows)
    rows = (
        evaluation.rows[0].model_copy(update={"scores": {metric: base}}),
        evaluation.rows[1].model_copy(update={"scores": {metric: other.model_copy(update=changes)}}),
    )
    return evaluation.model_copy(update={"rows": rows})


@pytest.mark.parametrize(
    ("metric", "difference", "interval", "answer", "bold"),
    [
        (
            "fid",
            -0.42,
            (-0.55, -0.31),
            "`b` is 0.42 better than `a`, 95 % 0.31 to 0.55 ({fid}, {n} images, too few).",
            True,
        ),
        (
            "fid",
            0.42,
            (0.31, 0.55),
            "`b` is 0.42 worse than `a`, 95 % 0.31 to 0.55 ({fid}, {n} images, too few).",
            True,
        ),
        ("precision", 0.2, (0.1, 0.3), "`b` is 0.2 better than `a`, 95 % 0.1 to 0.3 (Precision, {n} images).", True),
        (
            "fid",
            0.1,
            (-1, 2),
            "`b` is not told apart from `a`: +0.1, 95 % -1 to +2 ({fid}, {n} images, too few).",
            False,
        ),
        ("fid", 0.1, None, "`b` is +0.1 from `a` ({fid}, {n} images, too few; without an interval).", False),
    ],
)
def test_a_page_begins_with_its_answer(
    evaluation: Evaluation, metric: str, difference: float, interval: Any, answer: str, bold: bool
) -> None:
    found = with_scores(evaluation, metric, difference=difference, interval=interval)
    page = build_score_page(found, config_of(found))
    title, count = title_of("fid", evaluation.features), evaluation.rows[1].count
    assert page.answer == answer.format(fid=title, n=count)
    table = page.sections[0].table
    assert table is not None
    column = table.columns.index(f"Δ {title_of(metric, evaluation.features)}")
    assert table.best == ({(1, column)} if bold else set())
    assert [row[0] for row in table.rows] == ["a", "b"]
    assert list(table.hover) == [row.samples for row in evaluation.rows]
    if interval is None:
        assert page.intervals is None
    else:
        assert page.intervals is not None
        (row,) = page.intervals.rows
        assert (row.low, row.value, row.high, row.excludes_zero) == (interval[0], difference, interval[1], bold)
        places = [page.intervals.place(value) for value in sorted([0.0, difference, *interval])]
        assert places == sorted(places)
        assert 0 < places[0] < places[-1] < 100


def test_a_mark_stands_beside_each_number_of_too_few_images_and_one_sentence_below(evaluation: Evaluation) -> None:
    page = build_score_page(evaluation, config_of(evaluation))
    table, title = page.sections[0].table, title_of("fid", evaluation.features)
    assert table is not None
    column = table.columns.index(title)
    assert table.marked == {(0, column), (1, column)}
    count, width = evaluation.rows[0].count, evaluation.features_width
    told = f"a, b: {count} images for {width} features: the covariance is singular, so {title} is biased"
    assert table.footnotes[0].startswith(told)
    assert ["singular" in note for note in table.footnotes].count(
        True
    ) == 2  # once of the folders, once of the reference
    enough = evaluation.model_copy(update={"features_width": 2})
    plain = build_score_page(enough, config_of(enough)).sections[0].table
    assert plain is not None
    assert plain.marked == frozenset()


def test_of_one_folder_the_score_is_the_answer(evaluation: Evaluation) -> None:
    alone = evaluation.model_copy(update={"rows": evaluation.rows[:1]})
    page = build_score_page(alone, config_of(alone))
    assert page.answer.startswith(f"{title_of('fid', evaluation.features)} of `a` is ")
    assert page.intervals is None


def test_names_are_as_long_as_tells_them_apart() -> None:
    assert short_names(["x/a", "y/b"]) == ["a", "b"]
    assert short_names(["x/one/a", "x/two/a", "b"]) == ["one/a", "two/a", "b"]
    assert short_names(["a", "a"]) == ["a", "a"]


def test_a_folder_called_base_keeps_its_name(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = evaluation.rows[0].model_copy(update={"samples": str(Path(evaluation.rows[0].samples).rename("base"))})
    found = evaluation.model_copy(update={"rows": (named, evaluation.rows[1])})
    table = build_score_page(found, config_of(found)).sections[0].table
    assert table is not None
    assert [row[0] for row in table.rows] == ["base", Path(evaluation.rows[1].samples).name]


def test_folders_that_do_not_say_how_they_were_made(evaluation: Evaluation) -> None:
    unknown = evaluation.model_copy(update={"rows": evaluation.rows[1:]})
    assert [section.heading for section in build_score_page(unknown, config_of(evaluation)).sections] == [
        "Scores",
        "The first images of each folder",
        "The commands",
    ]
