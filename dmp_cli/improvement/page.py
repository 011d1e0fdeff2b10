"""The page of an improvement: what came out, images before and after, how the scale was chosen, and all commands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation import describe_features, draw_rows, few_of, read_first_images
from ..report import Comparison, Page, Picture, Section, Table, draw_curves, draw_image_grid
from ..version import __version__
from .answer import answer_of, intervals_of
from .outcome import Outcome
from .road import Road

_COLUMNS, _ROWS = 10, 4  # images under the slider


def draw_before_after(road: Road, outcome: Outcome) -> bytes:
    """Draw a row of images of the backbone, and one of the result; a column starts from one noise. PNG."""
    rows = _first_images(road, outcome, _COLUMNS)
    return draw_rows(rows, labels=["backbone", f"W = {outcome.choice.scale or 0:g}"][: len(rows)])


def build_improvement_page(road: Road, outcome: Outcome, *, commands: Sequence[str], use: str | None) -> Page:
    """Build the content of ``index.html``. ``use`` is the command that samples the result."""
    sections = [_result(road, outcome, use), _choice(outcome), _negative(road, outcome), _making(commands)]
    return Page(
        title="Sampled against its own mistakes",
        answer=answer_of(outcome, num_images=road.num_images),
        intervals=intervals_of(outcome),
        lead=" ".join(outcome.sentences()),
        sections=sections,
        provenance={
            **outcome.references(),
            **describe_features(outcome.choosing),
            "Seeds": f"{road.seed} for the own samples and the training, {road.choose_seed} to choose the scale, "
            f"{road.score_seed} for the scores",
            "dmp": __version__,
        },
    )


def _result(road: Road, outcome: Outcome, use: str | None) -> Section:
    if outcome.scored is None:
        return Section(heading="Result", paragraphs=["No scale was better than the backbone, so nothing was scored."])
    columns, rows = outcome.table()
    few, notes = few_of(outcome.scored, [row[0] for row in rows])
    marked = frozenset((at, columns.index(outcome.title("fid"))) for at in few)
    return Section(
        heading="Result",
        paragraphs=[
            "Scores against the half of the reference that did not choose the scale, on fresh noise. ± is the standard "
            "error over which images were drawn; Δ is the paired difference, as both sets start from the same noise. "
            "There is one training of the negative, so no spread covers another one.",
            "Move the slider: the backbone on one side, the result on the other.",
        ],
        table=Table(
            columns=columns,
            rows=rows,
            caption=f"{road.num_images:,} images in each set.",
            marked=marked,
            footnotes=notes,
        ),
        comparisons=[_slider(road, outcome)],
        commands=use,
    )


def _slider(road: Road, outcome: Outcome) -> Comparison:
    names = ("backbone", f"W = {outcome.choice.scale or 0:g}")
    sets = _first_images(road, outcome, _COLUMNS * _ROWS)
    columns = min(_COLUMNS, len(sets[0]))
    rows = len(sets[0]) // columns
    pictures = [
        Picture(png=draw_image_grid(images, rows=rows, columns=columns), alt=f"{rows * columns} images: {name}")
        for images, name in zip(sets, names, strict=True)
    ]
    return Comparison(before=pictures[0], after=pictures[1], names=names)


def _first_images(road: Road, outcome: Outcome, count: int) -> list[list[np.ndarray]]:
    scales = [None] if outcome.scored is None else [None, outcome.choice.scale]
    chosen = outcome.scored is not None
    return [read_first_images(road.samples(chosen=chosen, scale=scale), count=count) for scale in scales]


def _choice(outcome: Outcome) -> Section:
    columns, rows = outcome.choice_table()
    values = [outcome.choice.base, *outcome.choice.scores.values()]
    name = outcome.title(outcome.choice.metric)
    png = draw_curves({name: ([0, *outcome.choice.scores], values)}, xlabel="scale W", ylabel=name)
    scale = outcome.choice.scale or 0
    best = [0, *outcome.choice.scores].index(scale)
    return Section(
        heading="How the scale was chosen",
        paragraphs=[
            "By the other half of the reference, and by samples of another seed. The prediction is a + W (a - b), "
            "where a is the backbone and b the negative; W = 0 is the backbone itself. A scale that is too large "
            "loses variety, details, or both: precision and recall say which, where they are computed."
        ],
        table=Table(columns=columns, rows=rows, caption="The marked scale was taken.", best=frozenset({(best, 1)})),
        pictures=[Picture(png=png, alt=f"{name} over the scale W, with its best value at {scale:g}")],
    )


def _negative(road: Road, outcome: Outcome) -> Section:
    return Section(
        heading="What it is sampled against",
        paragraphs=[
            f"A version of the backbone that has learnt from {road.own_samples:,} of the backbone's own samples: "
            f"`--method {road.negative.method}`, {road.steps:,} steps. It makes the backbone's mistakes more strongly. "
            "So the way from it over the backbone leads away from them (SIMS, Alemohammad et al. 2024; autoguidance, "
            "Karras et al. 2024). It is never sampled by itself, and no real image was trained on."
        ],
    )


def _making(commands: Sequence[str]) -> Section:
    return Section(
        heading="How this page was made",
        paragraphs=["These commands ran, in this order:"],
        commands="\n".join(commands),
    )
