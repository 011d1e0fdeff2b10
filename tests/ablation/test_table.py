"""The table of an ablation names its scores as papers do, and knows which way each is better."""

from __future__ import annotations

from typing import Any

import pytest

from dmp_cli.ablation.answer import answer_of, intervals_of
from dmp_cli.ablation.table import name_of, notes_of, table_of


def report(features: str = "inception", **means: list[float]) -> dict[str, Any]:
    def arm(title: str, place: int) -> dict[str, Any]:
        scores = {
            name: {"seeds": [v[place]], "mean": v[place], "std": None, "error": None} for name, v in means.items()
        }
        return {"title": title, "scores": scores}

    arms = [arm(title, place) for place, title in enumerate(("base", "a", "b"))]
    return {"arms": arms, "seeds": [0], "steps": 2, "num_images": 5000, "features_width": 64, "features": features}


def with_differences(found: dict[str, Any], score: str, interval: Any) -> dict[str, Any]:
    base, *arms = found["arms"]
    for arm in arms:
        mean = arm["scores"][score]["mean"] - base["scores"][score]["mean"]
        arm["scores"][score]["difference"] = {"mean": mean, "interval": interval}
    return found


@pytest.mark.parametrize(
    ("score", "values", "interval", "answer"),
    [
        (
            "fid",
            [8.0, 7.0, 9.0],
            (-1.5, -0.5),
            "`a` is 1 better than `base`, 95 % 0.5 to 1.5 (FID, 5,000 images, 1 seed).",
        ),
        ("is", [8.0, 7.0, 9.0], (0.5, 1.5), "`b` is 1 better than `base`, 95 % 0.5 to 1.5 (IS, 5,000 images, 1 seed)."),
        ("recall", [0.5, 0.4, 0.3], (-0.2, -0.05), "`a` is 0.1 worse than `base`, 95 % 0.05 to 0.2 (Recall, 5,000 "),
        (
            "kid",
            [0.2, 0.3, 0.1],
            (-0.3, 0.1),
            "`b` is not told apart from `base`: -0.1, 95 % -0.3 to +0.1 (KID, 5,000 ",
        ),
        ("kid", [0.2, 0.3, 0.1], None, "`b` is -0.1 from `base` (KID, 5,000 images, 1 seed; without an interval)."),
    ],
)
def test_the_answer_is_of_the_best_arm(score: str, values: list[float], interval: Any, answer: str) -> None:
    found = with_differences(report(**{score: values}), score, interval)
    assert answer_of(found).startswith(f"Best of 2: {answer}")
    chart = intervals_of(found)
    if interval is None:
        assert chart is None
    else:
        assert chart is not None
        assert [(row.name, row.low, row.high) for row in chart.rows] == [("a", *interval), ("b", *interval)]
        assert ("right" if score in ("is", "recall") else "left") in chart.caption


def test_scores_have_the_names_of_papers() -> None:
    found = report("clip", fid=[1.0, 2.0, 3.0], precision=[0.5, 0.6, 0.7])
    assert table_of(found)[0] == ["arm", "CLIP-FID", "Δ CLIP-FID", "Precision", "Δ Precision"]
    assert name_of(report(**{"is": [1.0, 1.0, 1.0]}), "is") == "IS"
    assert "Higher is better for Precision, lower for CLIP-FID." in notes_of(found)[0]
    assert "Lower is better." in notes_of(report(fid=[1.0, 2.0, 3.0]))[0]
