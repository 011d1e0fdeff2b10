"""The page of an evaluation: every number of the table, a picture, and no word to any host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmp_cli.config import EvalConfig
from dmp_cli.evaluation import evaluate
from dmp_cli.report import render
from dmp_cli.scorepage import build_page
from dmp_cli.scores import Evaluation, table_of
from tests.builders import write_images


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    real, a, b = (
        write_images(tmp_path / n, count=12, size=3, classes=0, seed=s) for s, n in enumerate(("r", "a", "b"))
    )
    made = {"num_images": 12, "made": {"sample": {"sampler": "ddim", "steps": 50, "guidance": 1.5, "seed": 7}}}
    (a / "samples.json").write_text(json.dumps(made))
    return evaluate(EvalConfig(samples=(a, b), reference=real, features="pixels", bootstrap=4))


def test_the_page_says_what_the_table_says(evaluation: Evaluation) -> None:
    page = render(build_page(evaluation))
    columns, rows = table_of(evaluation)
    for text in (*columns, *(cell for row in rows for cell in row if cell != "base"), "ddim", "Warning: "):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('src="data:image/png;base64,') == 1


def test_the_lowest_score_is_marked(evaluation: Evaluation) -> None:
    table = build_page(evaluation).sections[0].table
    assert table is not None
    values = [row.scores["fid"].value for row in evaluation.rows]
    assert table.best == {(values.index(min(values)), table.columns.index("FID"))}


def test_folders_that_do_not_say_how_they_were_made(evaluation: Evaluation) -> None:
    unknown = evaluation.model_copy(update={"rows": evaluation.rows[1:]})
    assert [section.heading for section in build_page(unknown).sections] == [
        "Scores",
        "The first images of each folder",
    ]
