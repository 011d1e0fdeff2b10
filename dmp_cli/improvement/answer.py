"""What an improvement came to, in one sentence with a number, and its differences as a chart."""

from __future__ import annotations

from typing import Any

from ..evaluation import HIGHER_IS_BETTER
from ..report import Interval, Intervals, compare_in_words, span_in_words
from .outcome import Outcome


def answer_of(outcome: Outcome, *, num_images: int) -> str:
    """The sentence: of the result beside the backbone, or that no scale was better."""
    metric = outcome.choice.metric
    title = outcome.title(metric)
    if outcome.result is None:
        tried = ", ".join(f"{scale:g}" for scale in outcome.choice.scores)
        return f"No scale W of {tried} is better than the backbone, whose {title} is {outcome.choice.base:.4g}."
    few = metric == "fid" and num_images <= outcome.choosing.get("features_width", 0)
    found, of = outcome.result[metric], f"{title}, {num_images:,} images{', too few' if few else ''}"
    how: dict[str, Any] = {"base": "the backbone", "of": of, "higher_is_better": metric in HIGHER_IS_BETTER}
    told = compare_in_words(found["difference"], found["interval"], **how)
    return f"Sampled with `W = {outcome.choice.scale:g}`, it is {told}"


def intervals_of(outcome: Outcome) -> Intervals | None:
    """The difference of the result from the backbone; of all scales, where none was better and nothing was scored."""
    metric = outcome.choice.metric
    if outcome.result is not None:
        scores = {f"W = {outcome.choice.scale or 0:g}": outcome.result[metric]}
        half = ""
    else:
        rows = [row["scores"][metric] for row in outcome.choosing["rows"][1:]]
        scores = {f"W = {scale:g}": row for scale, row in zip(outcome.choice.scores, rows, strict=True)}
        half = ", on the choosing half"
    rows = [
        Interval(name=name, value=value, low=ends[0], high=ends[1], text=span_in_words(value, ends))
        for name, score in scores.items()
        if (ends := score["interval"]) is not None and (value := score["difference"]) is not None
    ]
    side = "right" if metric in HIGHER_IS_BETTER else "left"
    caption = f"Difference of {outcome.title(metric)} from the backbone{half}, 95 % interval; {side} is better."
    return Intervals(rows=rows, caption=caption) if rows else None
