"""The page of an ablation: its table, scores over training steps, and images of each arm from the same noise.

The diagram follows Figure 1 of the paper, the rows of images Figure 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..evaluation import describe_features, draw_rows, read_first_images
from ..report import EXCLUDES_ZERO, Page, Picture, Section, Table, draw_curves
from .answer import answer_of, interval_of, intervals_of
from .plan import BASE, Plan
from .table import about_few, name_of, notes_of, table_of

_SHOWN = 10  # images in each row
_FAR = 1.25  # times the score of the base: arms that ever score more are left out of the second diagram


def draw_pictures(plan: Plan, report: dict[str, Any]) -> dict[str, bytes]:
    """Draw the pictures of an ablation, by file name.

    A second diagram leaves out the arms with high scores, next to which the other curves look flat.
    """
    base, *arms = report["arms"]
    metric = next(iter(base["scores"]))
    title = name_of(report, metric)
    limit = _FAR * abs(base["scores"][metric]["mean"])
    near = [arm for arm in arms if max(abs(point["scores"][metric]["mean"]) for point in arm["curve"]) <= limit]
    pictures = {"curves.png": draw_scores(base, arms, metric, title=title)}
    if 0 < len(near) < len(arms):
        pictures["curves-near.png"] = draw_scores(base, near, metric, title=title)
    return {**pictures, "side-by-side.png": draw_side_by_side(plan)}


def draw_scores(base: dict[str, Any], arms: Sequence[dict[str, Any]], metric: str, *, title: str) -> bytes:
    """Draw the mean score over training steps, one curve for each arm. Arms that first equal the base start at it."""
    series = {}
    for arm in arms:
        measured = [(point["step"], point["scores"][metric]["mean"]) for point in arm["curve"]]
        start = [(0, base["scores"][metric]["mean"])] if arm["starts_as_base"] else []
        series[arm["title"]] = ([step for step, _ in start + measured], [score for _, score in start + measured])
    return draw_curves(series, xlabel="training step", ylabel=title)


def draw_side_by_side(plan: Plan) -> bytes:
    """Draw one row of images for the base and for each arm, with the first seed. A column starts from one noise."""
    seed = plan.seeds[0]
    folders = {BASE: plan.samples(BASE, seed)}
    folders |= {arm.title: plan.samples(arm.name, seed, plan.steps_of(arm)[-1]) for arm in plan.arms}
    rows = [read_first_images(folder, count=_SHOWN, folders=len(folders)) for folder in folders.values()]
    return draw_rows(rows, labels=list(folders))


def build_ablation_page(
    plan: Plan, report: dict[str, Any], *, commands: Sequence[str], pictures: dict[str, bytes]
) -> Page:
    """Build the content of ``report.html``."""
    metrics = list(report["arms"][0]["scores"])
    names = ", ".join(arm["title"] for arm in report["arms"])
    return Page(
        title="Ablation",
        answer=answer_of(report),
        intervals=intervals_of(report),
        lead=f"{len(plan.arms)} ways to train one backbone on the same data, compared with the backbone itself.",
        sections=[
            Section(heading="Scores", table=_table(report)),
            Section(
                heading="Over training steps",
                paragraphs=[
                    "Each point is a mean over the seeds. Arms that equal the base before training start at its score."
                ],
                pictures=_curves(pictures, alt=f"{name_of(report, metrics[0])} over training steps of {names}"),
            ),
            Section(
                heading="The same noise in every row",
                paragraphs=["All images in a column start from the same noise."],
                pictures=[
                    Picture(png=pictures["side-by-side.png"], alt=f"One row of images for each of {names}", wide=True)
                ],
            ),
            Section(
                heading="How this page was made",
                paragraphs=["These commands ran, in this order:"],
                commands="\n".join(commands),
            ),
        ],
        provenance={
            "Reference": f"fingerprint {report['reference_fingerprint']}",
            **describe_features(report),
        },
    )


def _table(report: dict[str, Any]) -> Table:
    """The table of all arms, with what a reader of its numbers needs below it."""
    columns, rows = table_of(report)
    metrics = list(report["arms"][0]["scores"])
    clear = {
        (at, columns.index(f"Δ {name_of(report, metric)}"))
        for at, arm in enumerate(report["arms"])
        for metric in metrics
        if (found := interval_of(arm, metric)) is not None and (found[0] > 0 or found[1] < 0)
    }
    count = len(report["seeds"])
    caption = f"Means over {count} seed{'s' if count > 1 else ''}. Differences are from the base."
    few = about_few(report)
    marked = frozenset() if few is None else {(at, columns.index(name_of(report, "fid"))) for at in range(len(rows))}
    notes = [] if few is None else [few]
    notes += [note.removesuffix(f" Warning: {few}") for note in notes_of(report)]
    return Table(
        columns=columns,
        rows=rows,
        caption=caption,
        best=frozenset(clear),
        bold=EXCLUDES_ZERO,
        marked=frozenset(marked),
        footnotes=notes,
    )


def _curves(pictures: dict[str, bytes], *, alt: str) -> list[Picture]:
    shown = [Picture(png=pictures["curves.png"], alt=alt)]
    if "curves-near.png" in pictures:
        caption = f"The same, without the arms that score more than {_FAR:g} times the base at any step"
        shown.append(
            Picture(
                png=pictures["curves-near.png"],
                alt=f"{alt}, without the arms that score far more than the base",
                caption=caption,
            )
        )
    return shown
