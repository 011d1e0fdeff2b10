"""The page and the table of the demo, made from the files that its commands wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation import describe_features, few_of
from ..report import Interval, Intervals, Page, Picture, Section, Table, draw_curves
from ..storage import read_json, read_text
from ..version import __version__
from .floor import measure_floor
from .pictures import PER_ROW
from .story import BASE, GUIDED, METHODS, Story


@dataclass(frozen=True)
class Summary:
    """The table and the sentences that the command prints, and the scores that it returns."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    remarks: list[str]
    scores: dict[str, dict[str, Any]]  # set of samples -> score, spread, difference, difference_spread
    best: int  # row with the lowest score
    few: tuple[list[int], list[str]]  # rows of which a good part is due to there being few images, and notes on that


def build_demo_page(story: Story, commands: list[str]) -> tuple[Page, Summary]:
    """Build the page, and its table for the terminal."""
    report = read_json(story.scores / "report.json")
    summary = summarise(story, report)
    lead = (
        "A small diffusion transformer was trained on 1,797 real hand-written digits until its loss was flat. Here it "
        "is trained further on the same images with three methods. Then it is sampled against a small LoRA that has "
        "learnt from the model's own samples. All results draw their images from the same noise, and are scored. The "
        "numbers are those of this run, good or bad."
    )
    page = Page(
        title="Diffusion Model Patching, on a small scale",
        answer=summary.remarks[0],
        intervals=_intervals(story, summary),
        lead=lead,
        sections=[
            *(_scores(summary), _guided(story, summary), _pictures(story)),
            *(_gates(story), _curves(story), _making(commands)),
        ],
        provenance=_provenance(story, report),
    )
    return page, summary


def summarise(story: Story, report: dict[str, Any]) -> Summary:
    """Build the table: one row for each set of samples, base first, then real digits against real digits."""
    titles = story.sets()
    scores, rows = {}, []
    for (name, title), row in zip(titles.items(), report["rows"], strict=True):
        score = row["scores"]["fid"]
        scores[name] = {key: score[key] for key in ("value", "spread", "difference", "difference_spread", "interval")}
        changed = "" if name == BASE else _number(score["difference"], score["difference_spread"], sign="+")
        rows.append([title, f"{row['count']:,}", _number(score["value"], score["spread"]), changed])
    floor = measure_floor(seed=story.seed)
    rows.append(["real digits, one half against the other", f"{floor.count:,}", _number(floor.mean, floor.spread), ""])
    perfect = f"{floor.scaled_to(story.num_images):.1f}"
    return Summary(
        title="Frechet distance to the real digits (lower is better)",
        columns=["what is sampled", "images", "distance", "difference from base"],
        rows=rows,
        remarks=[
            _about_guided(scores),
            *_verdicts({titles[name]: score for name, score in scores.items() if name != BASE}),
            f"A perfect generator would score about {perfect}: the distance between real digits and other real digits, "
            "scaled to the same number of images.",
        ],
        scores=scores | {"real": {"value": floor.mean, "spread": floor.spread}},
        best=int(np.argmin([score["value"] for score in scores.values()])),
        few=few_of(report, list(titles.values())),
    )


def _about_guided(scores: dict[str, dict[str, Any]]) -> str:
    """What sampling against a LoRA of the model's own samples came to, for a reader who has never heard of it."""
    base, guided = scores[BASE], scores[GUIDED]
    what = "Sampled away from a small LoRA that has learnt the model's own mistakes from its own samples, the model"
    numbers = f"from {base['value']:.2f} to {guided['value']:.2f}"
    low, high = guided["interval"]
    span = f"the 95 % interval of the difference is {low:+.2f} to {high:+.2f}"
    if low <= 0 <= high:
        return f"{what} goes {numbers}: {span}, which contains zero, so that no gain is shown."
    percent = f"{abs(guided['difference']) / base['value']:.0%}".replace("%", " %")
    return f"{what} goes {numbers}, {percent} {'better' if high < 0 else 'WORSE'}: {span}."


def _verdicts(scores: dict[str, dict[str, Any]]) -> list[str]:
    """Sentences that say whose 95 % interval of the difference lies on one side of zero, and whose does not."""
    better, worse, unclear = "Better than the base", "Worse than the base", "No difference from the base is shown"
    titles: dict[str, list[str]] = {better: [], worse: [], unclear: []}
    for title, score in scores.items():
        low, high = score["interval"]
        verdict = better if high < 0 else worse if low > 0 else unclear
        changed = _number(score["difference"], score["difference_spread"], sign="+")
        titles[verdict].append(f"{title} ({changed})")
    return [f"{verdict}: {'; '.join(found)}." for verdict, found in titles.items() if found]


def _number(value: float, spread: float, *, sign: str = "") -> str:
    return f"{value:{sign}.2f} ± {spread:.2f}"


def _intervals(story: Story, summary: Summary) -> Intervals:
    """The differences from the base, as a chart."""
    rows = []
    for name, title in story.sets().items():
        if name != BASE:
            score = summary.scores[name]
            low, high = score["interval"]
            text = f"{score['difference']:+.2f} ({low:+.2f} to {high:+.2f})"
            rows.append(Interval(name=title, value=score["difference"], low=low, high=high, text=text))
    rows.sort(key=lambda row: row.value)
    return Intervals(rows=rows, caption="Difference of the distance from the base, 95 % interval; left is better.")


def _scores(summary: Summary) -> Section:
    return Section(
        heading="Scores",
        paragraphs=[
            "The score is the Frechet distance between the samples and all 1,797 real digits, in the 64 features of a "
            "small digit classifier. It is the FID formula with other features. ± is the standard error over "
            "which images were drawn. Differences are paired, image by image, because every set starts from "
            "the same noise. The three methods that train on the digits see the same images, noise and timesteps, at a "
            "constant learning rate. "
            "“its EMA” is the running average of the weights of the same run. There is one training run in each row, "
            "so no spread includes the effect of another training seed.",
            " ".join(summary.remarks[1:]),
        ],
        table=Table(
            columns=summary.columns,
            rows=summary.rows,
            caption="Distance of the samples from the real digits; the lowest is marked.",
            best=frozenset({(summary.best, 2)}),
            marked=frozenset((at, 2) for at in summary.few[0]),
            footnotes=summary.few[1],
        ),
    )


def _guided(story: Story, summary: Summary) -> Section:
    return Section(
        heading="Base and guided, large",
        paragraphs=[
            _about_guided(summary.scores),
            "A low-rank adapter (LoRA) was trained on samples of the base, so that it makes the base's mistakes more "
            "strongly. At each denoising step the prediction is moved away from the adapter's: a + W (a - b), W = 1. "
            "Of each digit one sees the two images that this changes most, the base above the guided from the same "
            "noise, interpolated. Most images change less.",
        ],
        pictures=[
            Picture(
                png=story.before_after.read_bytes(),
                alt="Two pairs of rows of digits: the base above, the guided ones from the same noise below",
                wide=True,
            )
        ],
    )


def _pictures(story: Story) -> Section:
    png = story.side_by_side.read_bytes()
    labels = story.sets()
    alt = f"{len(labels)} rows of {PER_ROW} generated digits: a row is one set of samples, a column is one noise"
    return Section(
        heading="The same noise in every row",
        paragraphs=["All images in a column start from the same noise and were drawn for the same digit, 0 to 9."],
        pictures=[Picture(png=png, alt=alt, wide=True)],
    )


def _gates(story: Story) -> Section:
    summary = read_json(story.gates / "summary.json")
    return Section(
        heading="What the gate of the DMP patch does",
        paragraphs=[
            "For each block, a map shows the weight of every prompt at every timestep. Beside it are the same weights, "
            "placed where the prompts lie in the image. All maps share one scale."
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
    png = draw_curves(
        {**series, "DMP": (steps, [0.0] * len(steps))},
        xlabel="training step",
        ylabel="noise MSE minus that of DMP, x 1000",
    )
    return Section(
        heading="Training loss, compared on the same batches",
        paragraphs=[
            "The loss changes far more from batch to batch than from method to method. All methods see the same "
            "batches, so the curves show the difference from DMP on these batches, averaged over the steps between two "
            "points. Below zero, the loss is lower than that of DMP. A lower training loss does not always mean better "
            "images."
        ],
        pictures=[
            Picture(
                png=png, alt="Training loss of fine-tuning and prompt tuning minus that of DMP, over training steps"
            )
        ],
    )


def _losses(log: Path) -> tuple[list[int], list[float]]:
    lines = [json.loads(line) for line in read_text(log).splitlines()]
    lines = [line for line in lines if "mse" in line]
    return [line["step"] for line in lines], [line["mse"] for line in lines]


def _making(commands: list[str]) -> Section:
    return Section(
        heading="How this page was made",
        paragraphs=["The embedded digits were written as PNGs. Then these commands ran, in this order:"],
        commands="\n".join(commands),
    )


def _provenance(story: Story, report: dict[str, Any]) -> dict[str, str]:
    return {
        "Images": "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning "
        "Repository, CC BY 4.0; fingerprint " + str(report["reference_provenance"]["fingerprint"]),
        **describe_features(report),
        "Budget": f"{story.steps} steps of 128 images each, {story.num_images} images in each set, seed {story.seed}",
        "dmp": __version__,
    }
