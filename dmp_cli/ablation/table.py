"""The table of an ablation: mean of each score, spread over the seeds, and paired difference from the base.

Letters: K seeds.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, one_line
from ..evaluation import direction_of, plus_minus, title_of
from ..report import markdown_table
from ..storage import read_header, read_json
from .plan import BASE, Plan
from .seeds import KINDS, interval_of_seeds

Place = tuple[str, int]  # name of base or arm, and step
Scores = dict[Place, dict[str, list[float]]]  # metric -> a value per seed
Within = dict[Place, dict[str, list[tuple[float, float] | None]]]  # the interval of each seed's difference over images


@dataclass(frozen=True)
class Summary:
    """A number measured once per seed, and its mean and spread."""

    seeds: list[float]  # one value per seed, in the order of the seeds
    mean: float
    std: float | None  # over the seeds, divided by K - 1; None for one seed

    @property
    def error(self) -> float | None:
        """Standard error of the mean, std / sqrt(K)."""
        return None if self.std is None else self.std / math.sqrt(len(self.seeds))


def summarise(values: list[float]) -> Summary:
    """Mean and standard deviation of ``values``, one per seed."""
    return Summary(values, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def read_scores(plan: Plan) -> tuple[Scores, Within]:
    """Read the scores that ``dmp eval`` wrote, by set of samples, with the intervals of their differences."""
    found: Scores = {}
    within: Within = {}
    for seed in plan.seeds:
        report = read_json(plan.scores(seed) / "report.json")
        for row, place in zip(report["rows"], plan.sets(seed).values(), strict=True):
            for metric, score in row["scores"].items():
                found.setdefault(place, {}).setdefault(metric, []).append(score["value"])
                within.setdefault(place, {}).setdefault(metric, []).append(score.get("interval"))
    return found, within


def read_features(plan: Plan) -> dict[str, Any]:
    """Read the features, versions and reference of the scores. They are the same for all seeds, as the options are."""
    report = read_json(plan.scores(plan.seeds[0]) / "report.json")
    kept = ("features", "features_digest", "features_width", "versions")
    fingerprint = report["reference_provenance"]["fingerprint"]
    return {**{key: report[key] for key in kept}, "reference_fingerprint": fingerprint}


def report_of(plan: Plan) -> dict[str, Any]:
    """The content of ``report.json``. It holds no times and no paths, so equal scores make equal bytes."""
    (scores, within), features = read_scores(plan), read_features(plan)
    base = scores[BASE, 0]
    rows: list[dict[str, Any]] = [{"name": BASE, "title": BASE, "options": {}, "scores": _row(base, None)}]
    for arm in plan.arms:
        steps = plan.steps_of(arm)
        guided = arm.own_samples is not None
        rows.append(
            {
                "name": arm.name,
                "title": arm.title,
                "options": dict(arm.options),
                "parameters": count_learnt(plan.run(arm, plan.seeds[0])),
                "starts_as_base": arm.starts_as_base,
                **({"scales": [plan.scale(arm, seed) for seed in plan.seeds]} if guided else {}),
                "scores": _row(scores[arm.name, steps[-1]], base, within[arm.name, steps[-1]]),
                "curve": [
                    {"step": step, "scores": _row(scores[arm.name, step], base, within[arm.name, step])}
                    for step in steps
                ],
            }
        )
    return {
        "arms": rows,
        "steps": plan.steps,
        "seeds": list(plan.seeds),
        "num_images": plan.num_images,
        "training": dict(plan.training),
        **features,
        "definitions": DEFINITIONS,
    }


def count_learnt(run: Path) -> int | None:
    """How many numbers a run learns, by the header of its newest checkpoint; None where that cannot be read."""
    found = sorted(run.glob("checkpoints/step-*/learnt.safetensors"))
    try:
        return sum(math.prod(shape) for shape in read_header(found[-1]).shapes.values()) if found else None
    except CheckpointError:
        return None


DEFINITIONS = {
    "parameters": "how many numbers the arm learns; null where its checkpoints are gone",
    "std": "standard deviation over the seeds (K - 1); null for one seed. A seed fixes training and sampling noise",
    "difference": "score minus the base's of the same seed, from the same noise",
    "error": "std / sqrt(K)",
    "interval": "95 % interval of the mean difference; null where nothing says how wide it is",
    "interval_kind": KINDS,
}


def _row(
    scores: dict[str, list[float]],
    base: dict[str, list[float]] | None,
    within: dict[str, list[tuple[float, float] | None]] | None = None,
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for metric, values in scores.items():
        row[metric] = _json(summarise(values))
        if base is not None:
            paired = [value - other for value, other in zip(values, base[metric], strict=True)]
            row[metric]["difference"] = _json(summarise(paired))
            covered = interval_of_seeds(paired, within[metric] if within else [])
            row[metric]["difference"] |= {
                "interval": None if covered is None else [_plain(covered.low), _plain(covered.high)],
                "interval_kind": None if covered is None else covered.kind,
            }
    return row


def _plain(end: float) -> float:
    """An end of an interval to eight digits. Those beyond vary with the number of threads."""
    return float(f"{end:.8g}")


def _json(summary: Summary) -> dict[str, Any]:
    return {"seeds": summary.seeds, "mean": summary.mean, "std": summary.std, "error": summary.error}


def name_of(report: dict[str, Any], metric: str) -> str:
    """The name that papers use for a score: FID, CLIP-FID, IS, Precision."""
    return title_of(metric, report.get("features", ""))


def table_of(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column titles, and one row of text for each arm, base first."""
    metrics = list(report["arms"][0]["scores"])
    titles = [title for metric in metrics for title in (name_of(report, metric), f"Δ {name_of(report, metric)}")]
    rows, counts = [], any("parameters" in arm for arm in report["arms"])
    for arm in report["arms"]:
        learnt = arm.get("parameters")
        cells = [arm["title"], *(["–" if learnt is None else f"{learnt:,}"] if counts else [])]
        for metric in metrics:
            score = arm["scores"][metric]
            paired = score.get("difference")
            cells.append(plus_minus(score["mean"], score["std"]))
            cells.append("–" if paired is None else _with_interval(paired))
        rows.append(cells)
    return ["arm", *(["learns"] if counts else []), *titles], rows


def _with_interval(paired: dict[str, Any]) -> str:
    """A mean difference and its 95 % interval: ``-0.41 (-0.62 to -0.20)``."""
    if paired["interval"] is None:
        return plus_minus(paired["mean"], None, signed=True)
    low, high = paired["interval"]
    digits = max(0, min(4, 2 - math.floor(math.log10(max(high - low, 1e-9)))))
    return f"{paired['mean']:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def notes_of(report: dict[str, Any]) -> list[str]:
    """Sentences that a reader of the numbers needs: the budget, warnings, and what a spread is."""
    count = len(report["seeds"])
    budget = (
        f"Every arm trains for {report['steps']:,} steps; every set of samples has {report['num_images']:,} images. "
        + direction_of(report["arms"][0]["scores"], report.get("features", ""))
    )
    if (few := about_few(report)) is not None:
        budget += f" Warning: {few}"
    scales = [_about_scales(arm) for arm in report["arms"] if "scales" in arm]
    if count == 1:
        alone = "Δ is the difference from the base, and the interval beside it is over the images of this seed alone"
        return [budget, *scales, f"One seed: {alone}. Another one may give another difference: give --seeds 3 or more."]
    return [
        budget,
        *scales,
        f"± beside a score is the standard deviation over {count} seeds; each seed fixes the noise of training and of "
        "sampling. Δ is the mean difference from the base with the same seed, with its 95 % interval over the seeds "
        f"(Student's t with {count - 1} degrees of freedom), not narrower than over the images alone.",
    ]


def about_few(report: dict[str, Any]) -> str | None:
    """A sentence where the sets of samples are too small for their distance; None: they are not, or there is none."""
    count, width = report["num_images"], report["features_width"]
    if count > width or "fid" not in report["arms"][0]["scores"]:
        return None
    return (
        f"{count:,} images for {width:,} features: the covariance is singular, so {name_of(report, 'fid')} is biased."
    )


def _about_scales(arm: dict[str, Any]) -> str:
    told = ", ".join(f"{scale:g}" for scale in arm["scales"])
    several = " for each seed" if len(arm["scales"]) > 1 else ""
    return f"{arm['title']}: W, chosen{several} by samples of another seed, is {told}."


def render_markdown(report: dict[str, Any]) -> str:
    """The text of ``report.md``."""
    notes = (f"- {one_line(note)}" for note in notes_of(report))
    return "\n".join(["# Ablation", "", *markdown_table(*table_of(report)), "", *notes]) + "\n"
