"""The page of an evaluation: the table, the first images of every folder, and how everything was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import EvalConfig
from ..report import EXCLUDES_ZERO, Comparison, Page, Picture, Section, Table, draw_image_grid, short_names
from ..sampling import read_record
from .answer import answer_of, intervals_of
from .few_images import few_in, warn_of_few
from .first_images import draw_rows, read_first_images
from .metrics import title_of
from .reference import bounds_of
from .reproduce import commands_of
from .results import Evaluation, Row, describe_features, describe_reference, direction_of, notes_of, score_table
from .training_curves import training_section

_SHOWN = 10  # images of each folder
_SETTINGS = (
    "sampler",
    "steps",
    "guidance",
    "against_scale",
    "seed",
    "strength",
)  # entries of samples.json that get a column
Images = dict[str, list[np.ndarray]]  # folder -> its first images


def build_score_page(evaluation: Evaluation, config: EvalConfig, *, gates: Sequence[Section] = ()) -> Page:
    """Build the content of ``report.html``. ``gates`` are sections about the gates of a patch.

    The first images of each folder are read again.
    """
    folders = len(evaluation.rows)

    def read(folder: Path) -> list[np.ndarray]:
        bounds = bounds_of(config)
        return read_first_images(folder, count=_SHOWN, max_pixels=config.max_pixels, bounds=bounds, folders=folders)

    images = {row.samples: read(Path(row.samples)) for row in evaluation.rows}
    sections = [
        _scores(evaluation),
        _first_images(evaluation, images),
        _comparisons(evaluation, images),
        training_section(evaluation),
        *gates,
        _settings(evaluation),
        _commands(evaluation, config),
    ]
    report = evaluation.model_dump()
    told = f"{folders} folder{'s' if folders > 1 else ''}"
    direction = direction_of(evaluation.rows[0].scores, evaluation.features)
    return Page(
        title="Scores",
        answer=answer_of(evaluation),
        intervals=intervals_of(evaluation),
        lead=f"{told} of samples, scored against {short_names([evaluation.reference])[0]}. {direction}",
        sections=[section for section in sections if section is not None],
        provenance={
            "Reference": describe_reference(report),
            **describe_features(report),
        },
    )


def _scores(evaluation: Evaluation) -> Section:
    columns, rows = score_table(evaluation)
    # A column aligns right if all its cells are numbers, so "base" gives way to a dash; the first column holds names.
    rows[0] = [rows[0][0], *(cell if cell != "base" else "–" for cell in rows[0][1:])]
    names = short_names([row.samples for row in evaluation.rows])
    shown = [[name, *row[1:]] for name, row in zip(names, rows, strict=True)]
    clear = {
        (at, columns.index(f"Δ {title_of(name, evaluation.features)}"))
        for at, row in enumerate(evaluation.rows)
        for name, score in row.scores.items()
        if score.excludes_zero
    }
    called = dict(zip([row.samples for row in evaluation.rows], names, strict=True))
    few, notes = _about_few(evaluation, called)
    of = evaluation.model_dump() | {"reference": short_names([evaluation.reference])[0]}
    reference = describe_reference(of).rpartition(", fingerprint")[0]
    caption = f"Each folder is scored against {reference}. Differences are from the first folder."
    table = Table(
        columns=columns,
        rows=shown,
        caption=caption,
        best=frozenset(clear),
        bold=EXCLUDES_ZERO,
        hover=[row.samples for row in evaluation.rows],
        marked=frozenset((at, columns.index(title_of("fid", evaluation.features))) for at in few),
        footnotes=notes,
    )
    return Section(heading="Scores", table=table)


def _about_few(evaluation: Evaluation, called: dict[str, str]) -> tuple[list[int], list[str]]:
    """The rows that have too few images for their distance, and all notes, those about few images in one first."""
    width, title = evaluation.features_width, title_of("fid", evaluation.features)
    counted = few_in(evaluation)
    few = [at for at, one in enumerate(counted) if one.is_singular(width) or one.is_biased]
    told = ". ".join(warn_of_few(few_in(evaluation, called), width=width, title=title))
    known = warn_of_few(counted, width=width, title=title)
    notes = notes_of(evaluation, names=called, without=known)
    return few, [f"{told}.", *notes] if told else notes


def _first_images(evaluation: Evaluation, images: Images) -> Section:
    names = short_names([row.samples for row in evaluation.rows])
    rows = [images[row.samples] for row in evaluation.rows]
    alt = f"{min(map(len, rows))} images from each of {', '.join(names)}; one row for each folder"
    return Section(
        heading="The first images of each folder",
        paragraphs=[
            "Where two folders were drawn with the same seed, the images in a column start from the same noise."
        ],
        pictures=[Picture(png=draw_rows(rows, labels=names), alt=alt, wide=True)],
    )


def _comparisons(evaluation: Evaluation, images: Images) -> Section | None:
    """The base and each other folder that was drawn from the same noise, on top of each other with a slider."""
    base, *others = evaluation.rows
    paths = [row.samples for row in evaluation.rows]
    called = dict(zip(paths, short_names(paths), strict=True))
    pairs = [
        _comparison(base, row, images, called)
        for row in others
        if row.made and base.made and _noise_of(row.made) == _noise_of(base.made)
    ]
    if not pairs:
        return None
    words = (
        "Both sets of images start from the same noise: one from the base, one from the other model. "
        "Move the slider by mouse, finger or arrow keys."
    )
    return Section(heading="Before and after", paragraphs=[words], comparisons=pairs)


def _noise_of(made: dict[str, Any]) -> Any:
    """The entries of a samples.json that fix the noise and how it is denoised."""
    sample = read_record(made).sample
    names = ("seed", "plan", "classes", "prompts", "prompt_file", "sampler", "scheduler", "steps")
    return [sample.get(name) for name in names]


def _comparison(base: Row, other: Row, images: Images, called: dict[str, str]) -> Comparison:
    names = (called[base.samples], called[other.samples])
    sets = [images[row.samples] for row in (base, other)]
    count = min(map(len, sets))
    rows = 2 if count > _SHOWN // 2 else 1  # so that one sees them on a phone too
    pictures = [
        Picture(
            png=draw_image_grid(chosen[:count], rows=rows, columns=-(-count // rows)), alt=f"{count} images of {name}"
        )
        for chosen, name in zip(sets, names, strict=True)
    ]
    return Comparison(before=pictures[0], after=pictures[1], names=names)


def _settings(evaluation: Evaluation) -> Section | None:
    made = {row.samples: read_record(row.made).sample for row in evaluation.rows if row.made}
    if not made:
        return None
    columns = [key for key in _SETTINGS if any(key in sample for sample in made.values())]
    names = short_names(list(made))
    rows = [
        [name, *(str(sample.get(key, "")) for key in columns)]
        for name, sample in zip(names, made.values(), strict=True)
    ]
    caption = "Read from the samples.json of each folder"
    table = Table(columns=["samples", *columns], rows=rows, caption=caption, hover=list(made))
    return Section(heading="How the samples were made", table=table)


def _commands(evaluation: Evaluation, config: EvalConfig) -> Section:
    words = (
        "These commands draw the same images again, each set into its own folder, and score them. "
        "If a patch has moved, give its new path."
    )
    return Section(heading="The commands", paragraphs=[words], commands=commands_of(evaluation, config))
