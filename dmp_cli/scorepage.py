"""The page of an evaluation: the table, the first pictures of every folder, and how everything was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .decoding import decode
from .figures import image_grid
from .measurement import find_samples
from .report import Page, Picture, Section, Table
from .scores import Evaluation, Row, notes_of, table_of

_SHOWN = 10  # images of each folder
_MADE = ("sampler", "steps", "guidance", "seed", "strength")  # what is worth a column, of samples.json


def build_page(evaluation: Evaluation) -> Page:
    """The content of ``report.html``. Reads the first images of each folder again."""
    sections = [_scores(evaluation), _pictures(evaluation)]
    made = _made(evaluation)
    fingerprint = evaluation.reference_provenance.fingerprint or "unknown"
    return Page(
        title="Scores",
        lead=f"{len(evaluation.rows)} folders of samples against {evaluation.reference}. Lower is better.",
        sections=[*sections, made] if made else sections,
        provenance={
            "Reference": f"{evaluation.reference}, fingerprint {fingerprint}",
            "Features": f"{evaluation.features}, {evaluation.features_width} wide, {evaluation.features_digest}",
            "Versions": ", ".join(f"{name} {version}" for name, version in evaluation.versions.items()),
        },
    )


def _scores(evaluation: Evaluation) -> Section:
    columns, rows = table_of(evaluation)
    rows[0] = [cell if cell != "base" else "–" for cell in rows[0]]  # a column of numbers is set to the right
    metrics = list(evaluation.rows[0].scores)
    lowest = [min(range(len(rows)), key=lambda i: evaluation.rows[i].scores[metric].value) for metric in metrics]
    best = frozenset((row, columns.index(metric.upper())) for row, metric in zip(lowest, metrics, strict=True))
    caption = "Every folder against the reference; differences are to the first folder."
    table = Table(columns=columns, rows=rows, caption=caption, best=best)
    return Section(heading="Scores", paragraphs=notes_of(evaluation), table=table)


def _pictures(evaluation: Evaluation) -> Section:
    folders = [(row.samples, _first_images(Path(row.samples))) for row in evaluation.rows]
    columns = min(len(images) for _, images in folders)
    images = [image for _, shown in folders for image in shown[:columns]]
    names = [Path(name).name for name, _ in folders]
    png = image_grid(images, rows=len(folders), columns=columns, labels=names)
    alt = f"{columns} images of each of {', '.join(names)}, a row per folder"
    return Section(
        heading="The first images of each folder",
        paragraphs=["Where two folders were drawn with one seed, a column shows the same noise through both."],
        pictures=[Picture(png=png, alt=alt, wide=True)],
    )


def _first_images(path: Path) -> list[np.ndarray]:
    source, indices = find_samples(path)
    chosen = indices[:_SHOWN]
    return [np.asarray(decode(source.read(i), channels=3, name=source.name(i))) for i in chosen]


def _made(evaluation: Evaluation) -> Section | None:
    rows = [[row.samples, *(_setting(row, key) for key in _MADE)] for row in evaluation.rows if row.made]
    if not rows:
        return None
    table = Table(columns=["samples", *_MADE], rows=rows, caption="From each folder's samples.json")
    return Section(heading="How the samples were made", table=table)


def _setting(row: Row, key: str) -> str:
    sample: dict[str, Any] = ((row.made or {}).get("made") or {}).get("sample") or {}
    return str(sample.get(key, ""))
