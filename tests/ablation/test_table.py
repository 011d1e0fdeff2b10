"""The table of an ablation names its scores as papers do, and knows which way each is better."""

from __future__ import annotations

from typing import Any

import pytest

from dmp_cli.ablation.table import find_best, name_of, notes_of, table_of


def report(features: str = "inception", **means: list[float]) -> dict[str, Any]:
    def arm(title: str, place: int) -> dict[str, Any]:
        scores = {
            name: {"seeds": [v[place]], "mean": v[place], "std": None, "error": None} for name, v in means.items()
        }
        return {"title": title, "scores": scores}

    arms = [arm(title, place) for place, title in enumerate(("base", "a", "b"))]
    return {"arms": arms, "seeds": [0], "steps": 2, "num_images": 5000, "features_width": 64, "features": features}


@pytest.mark.parametrize(
    ("score", "values", "best"),
    [
        ("fid", [8.0, 7.0, 9.0], 1),
        ("is", [8.0, 7.0, 9.0], 2),
        ("recall", [0.5, 0.4, 0.3], 0),
        ("kid", [0.2, 0.3, 0.1], 2),
    ],
)
def test_the_best_row_is_the_highest_where_higher_is_better(score: str, values: list[float], best: int) -> None:
    assert find_best(report(**{score: values}), score) == best


def test_scores_have_the_names_of_papers() -> None:
    found = report("clip", fid=[1.0, 2.0, 3.0], precision=[0.5, 0.6, 0.7])
    assert table_of(found)[0] == ["arm", "CLIP-FID", "Δ CLIP-FID", "Precision", "Δ Precision"]
    assert name_of(report(**{"is": [1.0, 1.0, 1.0]}), "is") == "IS"
    assert "Higher is better for Precision, lower for CLIP-FID." in notes_of(found)[0]
    assert "Lower is better." in notes_of(report(fid=[1.0, 2.0, 3.0]))[0]
