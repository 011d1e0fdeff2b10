"""The page of an ablation: curves over steps (Figure 1), the same noise through each arm (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..report import Page, Picture, Section, Table, draw_curves, draw_image_grid
from .plan import BASE, Plan
from .table import notes_of, table_of

_SHOWN = 10  # images a row
_FAR = 1.25  # times the base's score


def draw_pictures(plan: Plan, report: dict[str, Any]) -> dict[str, bytes]:
    """The pictures of an ablation by file name; a second diagram where far curves would press the others flat."""
    base, *arms = report["arms"]
    metric = next(iter(base["scores"]))
    limit = _FAR * abs(base["scores"][metric]["mean"])
    near = [arm for arm in arms if max(abs(point["scores"][metric]["mean"]) for point in arm["curve"]) <= limit]
    pictures = {"curves.png": draw_scores(base, arms, metric)}
    if 0 < len(near) < len(arms):
        pictures["curves-near.png"] = draw_scores(base, near, metric)
    return {**pictures, "side-by-side.png": draw_side_by_side(plan)}


def draw_scores(base: dict[str, Any], arms: Sequence[dict[str, Any]], metric: str) -> bytes:
    """Mean score over steps, a curve an arm; one that changes nothing until it is trained starts at the base."""
    series = {}
    for arm in arms:
        measured = [(point["step"], point["scores"][metric]["mean"]) for point in arm["curve"]]
        start = [(0, base["scores"][metric]["mean"])] if arm["starts_as_base"] else []
        series[arm["title"]] = ([step for step, _ in start + measured], [score for _, score in start + measured])
    return draw_curves(series, xlabel="step", ylabel=metric.upper())


def draw_side_by_side(plan: Plan) -> bytes:
    """A row each of the base and the arms, of the first seed; a column is one noise."""
    seed, count = plan.seeds[0], min(_SHOWN, plan.num_images)
    folders = {BASE: plan.samples(BASE, seed)}
    folders |= {arm.title: plan.samples(arm.name, seed, plan.steps_of(arm)[-1]) for arm in plan.arms}
    images = [_read(folder / f"{index:06d}.png") for folder in folders.values() for index in range(count)]
    return draw_image_grid(images, rows=len(folders), columns=count, labels=list(folders))


def build_ablation_page(
    plan: Plan, report: dict[str, Any], *, commands: Sequence[str], pictures: dict[str, bytes]
) -> Page:
    """The content of ``report.html``."""
    columns, rows = table_of(report)
    metrics = list(report["arms"][0]["scores"])
    best = {
        (
            min(range(len(rows)), key=lambda row: report["arms"][row]["scores"][metric]["mean"]),
            columns.index(metric.upper()),
        )
        for metric in metrics
    }
    caption = f"Means over {len(report['seeds'])} seeds; differences are to the base."
    table = Table(columns=columns, rows=rows, caption=caption, best=frozenset(best))
    names = ", ".join(arm["title"] for arm in report["arms"])
    return Page(
        title="Ablation",
        lead=f"{len(plan.arms)} ways to train one backbone on its own data, and the backbone itself.",
        sections=[
            Section(heading="Scores", paragraphs=notes_of(report), table=table),
            Section(
                heading="Over the steps",
                paragraphs=[
                    "Means over the seeds. At step 0 an arm that changes nothing until it is trained is the base."
                ],
                pictures=_curves(pictures, alt=f"{metrics[0].upper()} over steps of {names}"),
            ),
            Section(
                heading="The same noise through each arm",
                paragraphs=["Each column starts from the same noise."],
                pictures=[Picture(png=pictures["side-by-side.png"], alt=f"A row of images each of {names}", wide=True)],
            ),
            Section(heading="How this was made", paragraphs=["By these commands:"], commands="\n".join(commands)),
        ],
        provenance={
            "Reference": f"fingerprint {report['reference_fingerprint']}",
            "Features": f"{report['features']}, {report['features_width']} wide, {report['features_digest']}",
            "Versions": ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        },
    )


def _curves(pictures: dict[str, bytes], *, alt: str) -> list[Picture]:
    shown = [Picture(png=pictures["curves.png"], alt=alt)]
    if "curves-near.png" in pictures:
        caption = f"The same without the arms that ever score more than {_FAR:g} times the base"
        shown.append(Picture(png=pictures["curves-near.png"], alt=f"{alt}, without the far ones", caption=caption))
    return shown


def _read(path: Any) -> np.ndarray:
    from PIL import Image

    return np.atleast_3d(np.asarray(Image.open(path)))
