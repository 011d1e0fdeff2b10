"""Scores over training steps, where folders hold samples of several checkpoints of one training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..report import Picture, Section, draw_curves
from ..sampling import read_record
from .metrics import title_of
from .results import Evaluation, Row


@dataclass
class _Training:
    """One training run, and the folders of samples from its checkpoints."""

    name: str
    points: list[tuple[int, Row]] = field(default_factory=list)  # (step, folder)


def training_section(evaluation: Evaluation) -> Section | None:
    """A section with one diagram for each score. None: no training run has samples at two steps or more.

    If the first folder was drawn from the bare backbone, it is the point at step 0 of every curve.
    """
    trainings = _find_trainings(evaluation)
    if not trainings:
        return None
    base = evaluation.rows[0]
    start = [(0, base)] if read_record(base.made).is_bare else []
    pictures = []
    for score in base.scores:
        title, series = title_of(score, evaluation.features), {}
        for name, training in trainings.items():
            points = [*start, *training.points]
            series[name] = ([step for step, _ in points], [row.scores[score].value for _, row in points])
        spoken = "; ".join(
            f"{name}: " + ", ".join(f"{y:.4g} at step {x:,}" for x, y in zip(*line, strict=True))
            for name, line in series.items()
        )
        png = draw_curves(series, xlabel="training step", ylabel=title)
        pictures.append(Picture(png=png, alt=f"{title} over training steps. {spoken}", caption=title))
    words = "Each point is a folder of samples from one checkpoint" + ("; the base is at step 0." if start else ".")
    return Section(heading="Over training steps", paragraphs=[words], pictures=pictures)


def _find_trainings(evaluation: Evaluation) -> dict[str, _Training]:
    """Training runs with samples at two steps or more, by a name that no two share; points in the order of steps."""
    found: dict[str, _Training] = {}
    for row in evaluation.rows:
        trained = read_record(row.made).origin.get("trained")
        if isinstance(trained, dict) and {"steps", "training", "name"} <= trained.keys():
            training = found.setdefault(trained["training"], _Training(trained["name"]))
            training.name = trained["name"]
            training.points.append((trained["steps"], row))
    kept = [training for training in found.values() if len({step for step, _ in training.points}) > 1]
    names = [training.name for training in kept]
    named = {}
    for number, training in enumerate(kept, start=1):
        training.points.sort(key=lambda point: point[0])
        named[f"{training.name} ({number})" if names.count(training.name) > 1 else training.name] = training
    return named
