"""The page of an evaluation: the table, the first pictures of every folder, and how everything was made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import EvalConfig
from ..data import decode
from ..errors import MetricError
from ..report import PNG_SIGNATURE, Comparison, Frames, Page, Picture, Section, Table, draw_curves, draw_image_grid
from ..sampling import read_record
from .extract import find_samples
from .metrics import HIGHER_IS_BETTER, title_of
from .reproduce import commands_of
from .results import Evaluation, Row, direction_of, notes_of, score_table

_FRAMES = 16  # timesteps whose gates are shown
_DEPTH_MAPS = {
    "usage": "Entropy and effective prompts of the gate over timestep and block",
    "added": "Norm of what is added, and its share of the hidden state's, over timestep and block",
    "comparison": "Divergence from another patch's gate over timestep and block",
}
_MAP = 96  # pixels of a gate's map, about
_SHOWN = 10  # images of each folder
_MADE = ("sampler", "steps", "guidance", "seed", "strength")  # what is worth a column, of samples.json
Pictures = dict[str, list[np.ndarray]]  # folder -> its first images


def build_score_page(evaluation: Evaluation, config: EvalConfig, *, gates: Sequence[Section] = ()) -> Page:
    """The content of ``report.html``. Reads the first images of each folder again. ``gates``: what to say of them."""
    shown = {row.samples: _first_images(Path(row.samples)) for row in evaluation.rows}
    sections = [
        _scores(evaluation),
        _pictures(evaluation, shown),
        _comparisons(evaluation, shown),
        _over_steps(evaluation),
        *gates,
        _settings(evaluation),
        _commands(evaluation, config),
    ]
    fingerprint = evaluation.reference_provenance.fingerprint or "unknown"
    return Page(
        title="Scores",
        lead=f"{len(evaluation.rows)} folders of samples against {evaluation.reference}. {direction_of(evaluation)}",
        sections=[section for section in sections if section is not None],
        provenance={
            "Reference": f"{evaluation.reference}, fingerprint {fingerprint}",
            "Features": f"{evaluation.features}, {evaluation.features_width} wide, {evaluation.features_digest}",
            "Versions": ", ".join(f"{name} {version}" for name, version in evaluation.versions.items()),
        },
    )


def _scores(evaluation: Evaluation) -> Section:
    columns, rows = score_table(evaluation)
    # A column of numbers is set to the right; the first column is a name, which may be "base" too.
    rows[0] = [rows[0][0], *(cell if cell != "base" else "–" for cell in rows[0][1:])]
    best = set()
    for name in evaluation.rows[0].scores:
        sign = -1 if name in HIGHER_IS_BETTER else 1
        values = [sign * row.scores[name].value for row in evaluation.rows]
        best.add((values.index(min(values)), columns.index(title_of(name, evaluation.features))))
    caption = "Every folder against the reference; differences are to the first folder."
    table = Table(columns=columns, rows=rows, caption=caption, best=frozenset(best))
    return Section(heading="Scores", paragraphs=notes_of(evaluation), table=table)


def _pictures(evaluation: Evaluation, shown: Pictures) -> Section:
    folders = [row.samples for row in evaluation.rows]
    columns = min(len(shown[folder]) for folder in folders)
    images = [image for folder in folders for image in shown[folder][:columns]]
    names = [Path(folder).name for folder in folders]
    png = draw_image_grid(images, rows=len(folders), columns=columns, labels=names)
    alt = f"{columns} images of each of {', '.join(names)}, a row per folder"
    return Section(
        heading="The first images of each folder",
        paragraphs=["Where two folders were drawn with one seed, a column shows the same noise through both."],
        pictures=[Picture(png=png, alt=alt, wide=True)],
    )


def _comparisons(evaluation: Evaluation, shown: Pictures) -> Section | None:
    """The base under every other folder whose images come from the same noise, with a slider between."""
    base, *others = evaluation.rows
    pairs = [
        _comparison(base, row, shown)
        for row in others
        if row.made and base.made and _noise_of(row.made) == _noise_of(base.made)
    ]
    if not pairs:
        return None
    words = "The same noise, through the base and through the other: move the slider, by mouse, finger or arrow keys."
    return Section(heading="Before and after", paragraphs=[words], comparisons=pairs)


def _over_steps(evaluation: Evaluation) -> Section | None:
    """Scores of checkpoints of one training over its steps, where two folders or more come from one; base at 0."""
    found: dict[str, list[tuple[int, Row]]] = {}
    names: dict[str, str] = {}
    for row in evaluation.rows:
        trained = read_record(row.made).origin.get("trained")
        if isinstance(trained, dict) and {"steps", "training", "name"} <= trained.keys():
            found.setdefault(trained["training"], []).append((trained["steps"], row))
            names[trained["training"]] = trained["name"]
    lines = {key: sorted(rows, key=lambda one: one[0]) for key, rows in found.items()}
    lines = {key: rows for key, rows in lines.items() if len({steps for steps, _ in rows}) > 1}
    if not lines:
        return None
    base = evaluation.rows[0]
    from_base = read_record(base.made).is_bare
    pictures = []
    for score in base.scores:
        title = title_of(score, evaluation.features)
        series = {}
        for number, (key, rows) in enumerate(lines.items(), start=1):
            points = [(0, base), *rows] if from_base else rows
            alike = [names[other] for other in lines].count(names[key]) > 1
            name = f"{names[key]} ({number})" if alike else names[key]
            series[name] = ([steps for steps, _ in points], [row.scores[score].value for _, row in points])
        spoken = "; ".join(
            f"{name}: " + ", ".join(f"{y:.4g} at step {x:,}" for x, y in zip(*line, strict=True))
            for name, line in series.items()
        )
        png = draw_curves(series, xlabel="training step", ylabel=title)
        pictures.append(Picture(png=png, alt=f"{title} over training steps. {spoken}", caption=title))
    words = "Each point is a folder of samples from one checkpoint" + (", the base at step 0." if from_base else ".")
    return Section(heading="Over training steps", paragraphs=[words], pictures=pictures)


def _noise_of(made: dict[str, Any]) -> Any:
    """What fixes the noise and what is drawn from it, of a samples.json."""
    sample = read_record(made).sample
    return [sample.get(key) for key in ("seed", "plan", "classes", "prompts", "sampler", "steps")]


def _comparison(base: Row, other: Row, shown: Pictures) -> Comparison:
    names = (Path(base.samples).name, Path(other.samples).name)
    sets = [shown[row.samples] for row in (base, other)]
    count = min(map(len, sets))
    pictures = [
        Picture(png=draw_image_grid(images[:count], rows=1, columns=count), alt=f"{count} images of {name}")
        for images, name in zip(sets, names, strict=True)
    ]
    return Comparison(before=pictures[0], after=pictures[1], names=names)


def gates_sections(path: Path) -> list[Section]:
    """What ``dmp inspect-gates`` wrote into a folder: maps over timesteps, and what it drew over timestep and depth.

    Raises:
        MetricError: there is no ``gates.npz``, or it cannot be read.
    """
    drawn = [
        Picture(png=_png(path / f"{name}.png"), alt=alt, wide=True)
        for name, alt in _DEPTH_MAPS.items()
        if (path / f"{name}.png").is_file()
    ]
    words = "Noise is at the top of each map, the image at its bottom; blocks from shallow to deep."
    depth = Section(heading="Gates over depth", paragraphs=[words], pictures=drawn)
    return [_over_timesteps(path), *([depth] if drawn else [])]


def _png(path: Path) -> bytes:
    data = path.read_bytes()
    if not data.startswith(PNG_SIGNATURE):
        raise MetricError(f"{path} is no PNG", hint="Run dmp inspect-gates again, with --force.")
    return data


def _over_timesteps(path: Path) -> Section:
    """Gate maps over timesteps, with a slider, from ``gates.npz``."""
    try:
        with np.load(path / "gates.npz", allow_pickle=False) as found:
            weights, timesteps = found["weights"], found["timesteps"]  # (T, L, N), (T,)
    except (OSError, ValueError, KeyError) as error:
        raise MetricError(
            f"cannot read the gates in {path}: {error}", hint="Give the folder of dmp inspect-gates."
        ) from error
    chosen = np.linspace(0, len(timesteps) - 1, min(_FRAMES, len(timesteps))).round().astype(int)
    low, high = float(weights[chosen].min()), float(weights[chosen].max())
    levels = (weights[chosen] - low) / max(high - low, 1e-12)  # one scale for all
    side = math.isqrt(weights.shape[2])
    shape = (side, side) if side * side == weights.shape[2] else (1, weights.shape[2])
    pictures = []
    for level, place in zip(levels, chosen, strict=True):
        maps = [_shade(block.reshape(shape)) for block in level]
        heads = [f"block {index}" for index in range(len(maps))]
        png = draw_image_grid(maps, rows=1, columns=len(maps), heads=heads)
        pictures.append(Picture(png=png, alt=f"Gate weights of {len(maps)} blocks at timestep {timesteps[place]}"))
    frames = Frames(pictures=pictures, names=[str(timesteps[place]) for place in chosen], what="Timestep")
    words = f"One map a block, a prompt a place in the image, light is strong; one scale, {low:.2g} to {high:.2g}."
    return Section(heading="Gates over timesteps", paragraphs=[words], frames=[frames])


def _shade(levels: np.ndarray) -> np.ndarray:
    """0..1 (H, W) to grey (H, W, 3), each prompt as a square of pixels."""
    grey = (255 * levels).round().astype(np.uint8)
    size = max(1, _MAP // max(levels.shape))
    return np.repeat(np.repeat(np.stack([grey] * 3, axis=-1), size, axis=0), size, axis=1)


def _first_images(path: Path) -> list[np.ndarray]:
    source, indices = find_samples(path)
    chosen = indices[:_SHOWN]
    return [np.asarray(decode(source.read(i), channels=3, name=source.name(i))) for i in chosen]


def _settings(evaluation: Evaluation) -> Section | None:
    rows = [[row.samples, *(_setting(row, key) for key in _MADE)] for row in evaluation.rows if row.made]
    if not rows:
        return None
    table = Table(columns=["samples", *_MADE], rows=rows, caption="From each folder's samples.json")
    return Section(heading="How the samples were made", table=table)


def _commands(evaluation: Evaluation, config: EvalConfig) -> Section:
    words = (
        "These draw the same images again, each in its folder, and score them. Give a patch that has moved by its path."
    )
    return Section(heading="The commands", paragraphs=[words], commands=commands_of(evaluation, config))


def _setting(row: Row, key: str) -> str:
    return str(read_record(row.made).sample.get(key, ""))
