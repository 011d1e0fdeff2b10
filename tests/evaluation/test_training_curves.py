"""Scores over training steps: which folders make a curve, and where it begins."""

from __future__ import annotations

from typing import Any

from dmp_cli.evaluation.page import build_score_page
from dmp_cli.evaluation.results import Evaluation

from .conftest import config_of


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
    assert said(None, 30, 10) == [f"FD (pixels) over training steps. dmp: {points}"]
    assert said(None, 30) == []
    assert said(None, 30, 30) == []
    assert "at step 0," not in said(10, 30)[0]
    assert said(None, 10, 130) == []  # of two trainings
    assert [line.count("dmp (") for line in said(None, 10, 20, 110, 120)] == [2]
