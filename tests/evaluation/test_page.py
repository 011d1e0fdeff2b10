"""The page of an evaluation: it shows every number of the table and a picture, and contacts no host."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.evaluation.page import build_score_page
from dmp_cli.evaluation.results import Evaluation, score_table
from dmp_cli.report.html import render

from .conftest import config_of


def test_the_page_says_what_the_table_says(evaluation: Evaluation) -> None:
    page = render(build_score_page(evaluation, config_of(evaluation)))
    columns, rows = score_table(evaluation)
    for text in (*columns, *(cell for row in rows for cell in row if cell != "base"), "ddim", "Warning: "):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('src="data:image/png;base64,') == 1


def test_the_lowest_score_is_marked(evaluation: Evaluation) -> None:
    table = build_score_page(evaluation, config_of(evaluation)).sections[0].table
    assert table is not None
    values = [row.scores["fid"].value for row in evaluation.rows]
    assert table.best == {(values.index(min(values)), table.columns.index("FID"))}


def test_the_highest_is_marked_where_higher_is_better(evaluation: Evaluation) -> None:
    low, high = (
        row.scores["fid"].model_copy(update={"value": value})
        for row, value in zip(evaluation.rows, (0.2, 0.7), strict=True)
    )
    rows = tuple(
        row.model_copy(update={"scores": {"precision": score}})
        for row, score in zip(evaluation.rows, (low, high), strict=True)
    )
    found = evaluation.model_copy(update={"rows": rows})
    page = build_score_page(found, config_of(found))
    table = page.sections[0].table
    assert table is not None
    assert table.best == {(1, table.columns.index("Precision"))}
    assert "Higher is better for Precision." in page.lead


def test_a_folder_called_base_keeps_its_name(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = evaluation.rows[0].model_copy(update={"samples": str(Path(evaluation.rows[0].samples).rename("base"))})
    found = evaluation.model_copy(update={"rows": (named, evaluation.rows[1])})
    table = build_score_page(found, config_of(found)).sections[0].table
    assert table is not None
    assert [row[0] for row in table.rows] == ["base", evaluation.rows[1].samples]


def test_folders_that_do_not_say_how_they_were_made(evaluation: Evaluation) -> None:
    unknown = evaluation.model_copy(update={"rows": evaluation.rows[1:]})
    assert [section.heading for section in build_score_page(unknown, config_of(evaluation)).sections] == [
        "Scores",
        "The first images of each folder",
        "The commands",
    ]
