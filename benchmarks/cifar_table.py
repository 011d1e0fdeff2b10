"""The tables of the experiment on CIFAR-10: scores of each way to sample, the choice of W, and what it all took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cifar import Experiment


def print_tables(experiment: Experiment) -> None:
    """Print all of them as Markdown."""
    show(
        ["what is sampled", "W", "parameters", "distance", "difference (95 % interval)", "precision", "recall"],
        score_rows(experiment),
    )
    show(["distance on the choosing half, by W", *scales(experiment)], choice_rows(experiment))
    show(["step", "budget", "processor minutes"], step_rows(experiment))


def show(titles: list[str], rows: list[list[str]]) -> None:
    """Print one table."""
    lines = [titles, ["---"] * len(titles), *rows]
    print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines), flush=True)


def score_rows(experiment: Experiment) -> list[list[str]]:
    """The base, each negative with its scale, and the patch of real pictures."""
    from .cifar import METHODS, parameters_of

    names = {
        **{method: f"against the {told} of its own samples" for method, told in METHODS.items()},
        "real": "with the DMP patch of real pictures",
    }
    first, *others = json.loads((experiment.folder / "scores" / "report.json").read_text())["rows"]
    rows = [["the base", "0", f"{parameters_of(experiment.base):,}", *_cells(first["scores"])]]
    for (name, _), scored in zip(experiment.results(), others, strict=True):
        scale = "" if name == "real" else f"{experiment.chosen(name):g}"
        weights = experiment.patch if name == "real" else Path(experiment.improved(name)["negative"])
        count = parameters_of(_file_of(weights))
        rows.append([names[name], scale, f"{count:,}", *_cells(scored["scores"])])
    return rows


def scales(experiment: Experiment) -> list[str]:
    """The scales that were tried, 0 first."""
    return ["0", *(f"{float(scale):g}" for scale in experiment.budget.scales.split(","))]


def choice_rows(experiment: Experiment) -> list[list[str]]:
    """The distance of each negative at each scale, on the half and the noise that choose."""
    from .cifar import METHODS

    rows = []
    for method, told in METHODS.items():
        choice = experiment.improved(method)["choice"]
        rows.append([told, *(f"{value:.3f}" for value in (choice["base"], *choice["scores"].values()))])
    return rows


def step_rows(experiment: Experiment) -> list[list[str]]:
    """What each step did, and how long it took."""
    budget, done = experiment.budget, experiment.done()
    negative = f"{budget.own_samples:,} own samples, {budget.steps:,} steps, {budget.num_images:,} images a set"
    told = {
        "pictures": "60,000",
        "classifier": f"{budget.epochs} epochs; {done['classifier']['answer']:.1%} of the 10,000 test pictures right",
        "base": f"{budget.base_steps:,} steps",
        "improve lora": negative,
        "improve dmp": negative,
        "real": f"{budget.steps:,} steps",
        "base samples": f"{budget.num_images:,}",
        "real samples": f"{budget.num_images:,}",
        "scores": "all sets on the scoring half",
    }
    return [[name, text, f"{done[name]['minutes']:.1f}"] for name, text in told.items()]


def _cells(scores: dict[str, dict[str, Any]]) -> list[str]:
    distance = scores["fid"]
    difference = ""
    if distance["interval"] is not None:
        low, high = distance["interval"]
        difference = f"{distance['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
    rest = [f"{scores[name]['value']:.3f}" for name in ("precision", "recall")]
    return [f"{distance['value']:.3f} ± {distance['spread']:.3f}", difference, *rest]


def _file_of(path: Path) -> Path:
    return path / "adapter_model.safetensors" if path.is_dir() else path
