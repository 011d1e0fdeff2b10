"""The demo's page and table, from the files its commands left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..report import Page, Picture, Section, Table, draw_curves, draw_image_grid
from ..version import __version__
from .floor import measure_floor
from .story import BASE, METHODS, Story

_PER_ROW = 10  # pictures of each set: one of every digit


@dataclass(frozen=True)
class Summary:
    """What the command prints and returns."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    remarks: list[str]
    scores: dict[str, dict[str, Any]]  # set of samples -> score, spread, difference, difference_spread
    best: int  # row of the lowest score


def build_demo_page(story: Story, commands: list[str]) -> tuple[Page, Summary]:
    """The page, and its table for the terminal."""
    report = json.loads((story.scores / "report.json").read_text())
    summary = summarise(story, report)
    lead = (
        "A small diffusion transformer was trained on 1,797 real hand-written digits until its loss was flat. Here it "
        "is trained further on the same images in three ways, and every result is scored from the same noise. "
        "These are the numbers of this run, whatever they are."
    )
    page = Page(
        title="Diffusion Model Patching, on a small scale",
        lead=lead,
        sections=[_scores(summary), _pictures(story), _gates(story), _curves(story), _making(commands)],
        provenance=_provenance(story, report),
    )
    return page, summary


def summarise(story: Story, report: dict[str, Any]) -> Summary:
    """The table: a row per set of samples, base first, then real against real; and what it says in words."""
    titles = story.sets()
    scores, rows = {}, []
    for (name, title), row in zip(titles.items(), report["rows"], strict=True):
        score = row["scores"]["fid"]
        scores[name] = {key: score[key] for key in ("value", "spread", "difference", "difference_spread")}
        changed = "" if name == BASE else _number(score["difference"], score["difference_spread"], sign="+")
        rows.append([title, f"{row['count']:,}", _number(score["value"], score["spread"]), changed])
    best = int(np.argmin([score["value"] for score in scores.values()]))
    floor = measure_floor(seed=story.seed)
    rows.append(["real digits, half against half", f"{floor.count:,}", _number(floor.mean, floor.spread), ""])
    perfect = f"{floor.scaled_to(story.num_images):.1f}"
    return Summary(
        title="Frechet distance to the real digits, lower is better",
        columns=["backbone", "images", "distance", "against base"],
        rows=rows,
        remarks=[
            *_in_words({titles[name]: score for name, score in scores.items() if name != BASE}),
            f"A perfect generator would score about {perfect}: real against real, scaled to as many images.",
        ],
        scores=scores | {"real": {"value": floor.mean, "spread": floor.spread}},
        best=best,
    )


def _in_words(scores: dict[str, dict[str, Any]]) -> list[str]:
    """Which differences exceed two standard errors, and which do not."""
    said: dict[str, list[str]] = {"Better than the base": [], "Worse than the base": [], "Within the noise": []}
    for title, score in scores.items():
        difference, spread = score["difference"], score["difference_spread"]
        verdict = "Within the noise"
        if abs(difference) > 2 * spread:
            verdict = "Better than the base" if difference < 0 else "Worse than the base"
        said[verdict].append(f"{title} ({_number(difference, spread, sign='+')})")
    return [f"{verdict}: {'; '.join(titles)}." for verdict, titles in said.items() if titles]


def _number(value: float, spread: float, *, sign: str = "") -> str:
    return f"{value:{sign}.2f} ± {spread:.2f}"


def _scores(summary: Summary) -> Section:
    return Section(
        heading="Scores",
        paragraphs=[
            "Frechet distance between the samples and all 1,797 real digits, on the 64 features of a small digit "
            "classifier: the same formula as FID, with features that know digits. The spread is the standard error "
            "over bootstrap resamples of the images; differences are paired, image by image, because every set starts "
            "from the same noise. All three trainings see the same images, noise and timesteps at a constant learning "
            "rate; “its EMA” is the running average of the very same training. One training seed is shown, and what "
            "another would change is in none of the spreads.",
            " ".join(summary.remarks),
        ],
        table=Table(
            columns=summary.columns,
            rows=summary.rows,
            caption="Samples against the real digits; the lowest distance is marked",
            best=frozenset({(summary.best, 2)}),
        ),
    )


def draw_side_by_side(story: Story) -> bytes:
    """The same noise through each set (paper, Figure 5): a row per set of samples, a column per noise, as PNG."""
    images, labels = [], list(story.sets().values())
    for name in story.sets():
        images += [_read(story.samples(name) / f"{index:06d}.png") for index in range(_PER_ROW)]
    return draw_image_grid(images, rows=len(labels), columns=_PER_ROW, labels=labels)


def _pictures(story: Story) -> Section:
    png = story.side_by_side.read_bytes()
    labels = story.sets()
    alt = f"{len(labels)} rows of {_PER_ROW} generated digits, one row per set of samples, columns share their noise"
    return Section(
        heading="The same noise through each of them",
        paragraphs=["Each column starts from the same noise and asks for the same digit, 0 to 9."],
        pictures=[Picture(png=png, alt=alt, wide=True)],
    )


def _gates(story: Story) -> Section:
    summary = json.loads((story.gates / "summary.json").read_text())
    return Section(
        heading="What the gate of the DMP patch does",
        paragraphs=[
            "Weight of every prompt at every timestep, for each block, on one scale; beside it the same weights at the "
            "places in the image that the prompts belong to."
        ],
        pictures=[
            Picture(
                png=(story.gates / "gates.png").read_bytes(),
                alt=f"Heatmaps of gate weights over timesteps and prompts for {len(summary['blocks'])} blocks",
                wide=True,
            )
        ],
    )


def _curves(story: Story) -> Section:
    losses = {method: _losses(story.run(method) / "log.jsonl") for method in METHODS}
    steps, ours = losses.pop("dmp")
    series = {
        METHODS[method]: (steps, [1000 * (a - b) for a, b in zip(values, ours, strict=True)])
        for method, (_, values) in losses.items()
    }
    png = draw_curves({**series, "DMP": (steps, [0.0] * len(steps))}, xlabel="step", ylabel="noise MSE - DMP's, x 1000")
    return Section(
        heading="Training loss, batch for batch",
        paragraphs=[
            "Which batch comes moves the loss far more than the method does, and all methods see the same batches: so "
            "the curves show the difference to DMP on them, means over the steps between two points. Below zero is a "
            "lower loss than DMP's. A lower training loss is not yet a better picture."
        ],
        pictures=[
            Picture(png=png, alt="Training loss of fine-tuning and prompt tuning minus that of DMP, over the steps")
        ],
    )


def _losses(log: Path) -> tuple[list[int], list[float]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines = [line for line in lines if "mse" in line]
    return [line["step"] for line in lines], [line["mse"] for line in lines]


def _making(commands: list[str]) -> Section:
    return Section(
        heading="How this page was made",
        paragraphs=["By these commands, in this order, after writing the embedded digits as PNGs:"],
        commands="\n".join(commands),
    )


def _provenance(story: Story, report: dict[str, Any]) -> dict[str, str]:
    return {
        "Images": "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning "
        "Repository, CC BY 4.0; fingerprint " + str(report["reference_provenance"]["fingerprint"]),
        "Features": f"{report['features']}, {report['features_width']} wide, {report['features_digest']}",
        "Budget": f"{story.steps} steps of 128 images each, {story.num_images} images a set, seed {story.seed}",
        "Versions": ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        "dmp": __version__,
    }


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    return np.atleast_3d(np.asarray(Image.open(path)))
