"""The demo's page and table, from the files its commands left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..figures import draw_curves, image_grid
from ..report import Page, Picture, Section, Table
from ..scores import plus_minus
from .floor import measure_floor
from .story import BASE, METHODS, Story

_PER_ROW = 20  # pictures of each set: two of every digit


@dataclass(frozen=True)
class Summary:
    """What the command prints and returns."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    remarks: list[str]
    scores: dict[str, dict[str, Any]]  # set of samples -> score, spread, difference, difference_spread
    best: int  # row of the lowest score


def build_page(story: Story, commands: list[str]) -> tuple[Page, Summary]:
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
        difference = score["difference"]
        changed = "" if difference is None else plus_minus(difference, score["difference_spread"], signed=True)
        rows.append([title, f"{row['count']:,}", plus_minus(score["value"], score["spread"]), changed])
    best = int(np.argmin([score["value"] for score in scores.values()]))
    floor = measure_floor(seed=story.seed)
    rows.append(["real digits, half against half", f"{floor.count:,}", plus_minus(floor.mean, floor.spread), ""])
    perfect = f"scaled to {story.num_images:,} images, real against real is {floor.scaled_to(story.num_images):.1f}"
    return Summary(
        title="Frechet distance to the real digits, lower is better",
        columns=["backbone", "images", "distance", "against base"],
        rows=rows,
        remarks=[*(_in_words(titles[name], score) for name, score in scores.items() if name != BASE), perfect],
        scores=scores | {"real": {"value": floor.mean, "spread": floor.spread}},
        best=best,
    )


def _in_words(title: str, score: dict[str, Any]) -> str:
    difference, spread = score["difference"], score["difference_spread"]
    if not spread or abs(difference) < 2 * spread:
        return f"{title}: no difference that stands out from the noise ({plus_minus(difference, spread, signed=True)})"
    return f"{title}: {'better' if difference < 0 else 'worse'} than the base by {plus_minus(abs(difference), spread)}"


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
            *[f"{remark}." for remark in summary.remarks],
        ],
        table=Table(
            columns=summary.columns,
            rows=summary.rows,
            caption="Samples against the real digits; the lowest distance is marked",
            best=frozenset({(summary.best, 2)}),
        ),
    )


def _pictures(story: Story) -> Section:
    images, labels = [], []
    for name, title in story.sets().items():
        labels.append(title)
        images += [_read(story.samples(name) / f"{index:06d}.png") for index in range(_PER_ROW)]
    png = image_grid(images, rows=len(labels), columns=_PER_ROW, labels=labels, scale=5)
    alt = f"{len(labels)} rows of {_PER_ROW} generated digits, one row per set of samples, columns share their noise"
    return Section(
        heading="The same noise through each of them",
        paragraphs=["Each column starts from the same noise and asks for the same digit, 0 to 9 and again 0 to 9."],
        pictures=[Picture(png=png, alt=alt, wide=True)],
    )


def _gates(story: Story) -> Section:
    summary = json.loads((story.gates() / "summary.json").read_text())
    return Section(
        heading="What the gate of the DMP patch does",
        paragraphs=[
            "Weight of every prompt at every timestep, for each block, on one scale; beside it the same weights at the "
            "places in the image that the prompts belong to."
        ],
        pictures=[
            Picture(
                png=(story.gates() / "gates.png").read_bytes(),
                alt=f"Heatmaps of gate weights over timesteps and prompts for {len(summary['blocks'])} blocks",
                wide=True,
            )
        ],
    )


def _curves(story: Story) -> Section:
    series = {}
    for method, title in METHODS.items():
        lines = [json.loads(line) for line in (story.run(method) / "log.jsonl").read_text().splitlines()]
        lines = [line for line in lines if "loss" in line]
        series[title] = ([line["step"] for line in lines], [line["mse"] for line in lines])
    png = draw_curves(series, xlabel="step", ylabel="noise MSE")
    return Section(
        heading="Training loss",
        paragraphs=["Mean over the steps between two points. The batches are the same, so the curves move together."],
        pictures=[Picture(png=png, alt="Training loss over the steps for the three methods")],
    )


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
