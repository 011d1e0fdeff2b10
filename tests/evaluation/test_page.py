"""The page of an evaluation: every number of the table, a picture, and no word to any host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.config import EvalConfig
from dmp_cli.evaluation.page import build_score_page
from dmp_cli.evaluation.results import Evaluation, score_table
from dmp_cli.evaluation.scoring import evaluate
from dmp_cli.report.html import render
from tests.builders import write_images


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    real, a, b = (
        write_images(tmp_path / n, count=12, size=3, classes=0, seed=s) for s, n in enumerate(("r", "a", "b"))
    )
    made = {"num_images": 12, "made": {"sample": {"sampler": "ddim", "steps": 50, "guidance": 1.5, "seed": 7}}}
    (a / "samples.json").write_text(json.dumps(made))
    return evaluate(EvalConfig(samples=(a, b), reference=real, features="pixels", bootstrap=4))


def config_of(evaluation: Evaluation) -> EvalConfig:
    folders = tuple(Path(row.samples) for row in evaluation.rows)
    return EvalConfig(samples=folders, reference=Path(evaluation.reference), features="pixels", bootstrap=4)


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


def test_scores_over_training_steps(evaluation: Evaluation) -> None:
    base, other = evaluation.rows

    def made(steps: int | None) -> dict[str, Any]:
        trained = None if steps is None else {"steps": steps % 100, "training": str(steps // 100), "name": "dmp"}
        return {"made": {"patch": steps and "0"}, "origin": {"trained": trained}}

    def said(*steps: int | None) -> list[str]:
        rows = [other.model_copy(update={"made": made(count)}) for count in steps]
        rows[0] = base.model_copy(update={"made": made(steps[0])})
        found = evaluation.model_copy(update={"rows": tuple(rows)})
        sections = build_score_page(found, config_of(evaluation)).sections
        chart = [section for section in sections if section.heading == "Over training steps"]
        return [picture.alt for section in chart for picture in section.pictures]

    low, high = base.scores["fid"].value, other.scores["fid"].value
    points = f"{low:.4g} at step 0, {high:.4g} at step 10, {high:.4g} at step 30"
    assert said(None, 30, 10) == [f"FID over training steps. dmp: {points}"]
    assert said(None, 30) == []
    assert said(None, 30, 30) == []
    assert "at step 0," not in said(10, 30)[0]
    assert said(None, 10, 130) == []  # of two trainings
    assert [line.count("dmp (") for line in said(None, 10, 20, 110, 120)] == [2]
