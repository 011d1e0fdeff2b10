"""The result of an evaluation: a record with one row for each folder, base first, and its Markdown report."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from ..config import Frozen, Growing
from ..errors import one_line
from ..report import markdown_table
from .led_away import scale_of
from .metrics import HIGHER_IS_BETTER, title_of
from .statistics import Provenance

_MOST_DECIMALS = 5


class Score(Growing):
    """One score of one folder. A spread is the standard error over which images were drawn; the reference is fixed."""

    later: ClassVar[frozenset[str] | None] = frozenset({"bias"})
    value: float
    spread: float | None  # None: not computed
    difference: float | None = None  # from the score of the first folder; None: this is the first folder
    difference_spread: float | None = None  # paired where both folders hold equally many images
    interval: tuple[float, float] | None = None  # 95 %, of the difference; None: no spread, or first folder
    subset_size: int | None = None  # kid: images in a subset
    subset_std: float | None = None  # kid: standard deviation over the subsets
    bias: float | None = None  # fid: how much lower it would be with many more images; None: not computed

    @property
    def excludes_zero(self) -> bool | None:
        """Whether the interval of the difference lies on one side of zero; None: there is no interval."""
        return None if self.interval is None else self.interval[0] > 0 or self.interval[1] < 0


class Row(Frozen):
    """One folder of samples."""

    samples: str
    count: int
    provenance: Provenance
    scores: dict[str, Score]
    made: dict[str, Any] | None  # the folder's samples.json: how the images were made; None: it has none


class Evaluation(Frozen):
    """All rows in the order given, the base first, with their reference, their features and the versions used."""

    rows: tuple[Row, ...]
    reference: str
    reference_provenance: Provenance
    features: str
    features_digest: str
    features_width: int
    bootstrap: int | None  # None: no resamples, the spread comes from the influence of each image
    repeats: int = 0
    seed: int
    warnings: tuple[str, ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The content of ``report.json``, as plain lists, strings and numbers."""
        content = self.model_dump(mode="json")
        for row, written in zip(self.rows, content["rows"], strict=True):
            for metric, score in row.scores.items():
                written["scores"][metric]["excludes_zero"] = score.excludes_zero
        return content


def score_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Column titles, and one row of text for each folder, base first. All columns but the first hold numbers.

    Where some folder was drawn against another version of its network, a column says how far it was led away, W.
    """
    names = [title_of(score, evaluation.features) for score in evaluation.rows[0].scores]
    titles = [title for name in names for title in (name, f"Δ {name}")]
    rows = [_cells(row, evaluation.repeats) for row in evaluation.rows]
    scales = [scale_of(row.made) for row in evaluation.rows]
    if all(scale is None for scale in scales):
        return ["samples", "images", *titles], rows
    told = ["–" if scale is None else f"{scale:g}" for scale in scales]
    return ["samples", "images", "W", *titles], [[*row[:2], w, *row[2:]] for row, w in zip(rows, told, strict=True)]


def render_scores(evaluation: Evaluation) -> str:
    """The text of ``report.md``: the table, then the reference, the features, the verdicts and all warnings."""
    return (
        "\n".join(["# Scores", "", *markdown_table(*score_table(evaluation)), "", *map(one_line, _notes(evaluation))])
        + "\n"
    )


def notes_of(
    evaluation: Evaluation, *, names: Mapping[str, str] | None = None, without: Collection[str] = ()
) -> list[str]:
    """Sentences that a reader of the numbers needs: what a spread is, each verdict, and each warning.

    Folders are called by ``names`` of their paths in the verdicts. Warnings in ``without`` are left out.
    """
    warnings = (f"Warning: {warning}" for warning in evaluation.warnings if warning not in without)
    return [_about_spreads(evaluation), *_about_scale(evaluation), *verdicts_of(evaluation, names=names), *warnings]


def _about_scale(evaluation: Evaluation) -> list[str]:
    if all(scale_of(row.made) is None for row in evaluation.rows):
        return []
    return ["W is how far samples were led away from another version of their network (--against-scale)."]


def verdicts_of(evaluation: Evaluation, *, names: Mapping[str, str] | None = None) -> list[str]:
    """For each difference with an interval, one sentence that says whether the interval excludes zero."""
    called = {row.samples: row.samples for row in evaluation.rows} | dict(names or {})
    base = called[evaluation.rows[0].samples]
    return [
        _verdict(name, score, title=title_of(name, evaluation.features), of=called[row.samples], base=base)
        for row in evaluation.rows[1:]
        for name, score in row.scores.items()
        if score.interval is not None
    ]


def _verdict(name: str, score: Score, *, title: str, of: str, base: str) -> str:
    assert score.interval is not None
    assert score.difference is not None
    low, high = (f"{end:+.3g}" for end in score.interval)
    span = f"the 95 % interval of the difference, {low} to {high},"
    if not score.excludes_zero:
        return f"{title} of {of}: {span} contains zero, so a difference from {base} is not shown."
    better = (score.difference > 0) == (name in HIGHER_IS_BETTER)
    word = f"{'lower' if score.difference < 0 else 'higher'} ({'better' if better else 'worse'})"
    return f"{title} of {of} is {word} than that of {base}: {span} excludes zero."


def _cells(row: Row, repeats: int) -> list[str]:
    cells = [row.samples, f"{repeats}\u00a0×\u00a0{row.count // repeats:,}" if repeats else f"{row.count:,}"]
    for score in row.scores.values():
        cells += [plus_minus(score.value, score.spread) + _subset(score), _difference(score)]
    return cells


def _difference(score: Score) -> str:
    if score.difference is None:
        return "base"
    return plus_minus(score.difference, score.difference_spread, signed=True)


def _subset(score: Score) -> str:
    return "" if score.subset_size is None else f" (m = {score.subset_size})"


def plus_minus(value: float, spread: float | None, *, signed: bool = False) -> str:
    """``value ± spread`` to two significant digits of the spread; without one, to four of the value."""
    sign = "+" if signed else ""
    if not spread:
        return f"{value:{sign}.4g}" + ("" if spread is None else " ± 0")
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    if decimals > _MOST_DECIMALS:
        return f"{value:{sign}.2e} ± {spread:.1e}"
    rounded = round(value, decimals) + 0.0  # no minus in front of a zero
    return f"{rounded:{sign}.{decimals}f} ± {spread:.{decimals}f}"


def _notes(evaluation: Evaluation) -> list[str]:
    report = evaluation.model_dump()
    sources = {"Reference": describe_reference(report), **describe_features(report)}
    notes = [f"{direction_of(evaluation.rows[0].scores, evaluation.features)} {_about_spreads(evaluation)}", ""]
    notes += [f"- {name}: {text}" for name, text in sources.items()]
    notes += [f"- {sentence}" for sentence in _about_scale(evaluation)]
    notes += [f"- {verdict}" for verdict in verdicts_of(evaluation)]
    return notes + [f"- Warning: {warning}" for warning in evaluation.warnings]


def describe_reference(report: Mapping[str, Any]) -> str:
    """What a ``report.json`` scores against: the name, which part, how many images, and their fingerprint."""
    known = report["reference_provenance"]
    part, count = known.get("part"), known["count"]
    told = "" if part is None else f"part {part[0] + 1} of {part[1]}, "
    number = "an unknown number of" if count is None else f"{count:,}"
    return f"{report['reference']}, {told}{number} images, fingerprint {known['fingerprint'] or 'unknown'}"


def describe_features(report: Mapping[str, Any]) -> dict[str, str]:
    """The features and the versions of a ``report.json`` in words, by the names that pages and reports give them."""
    return {
        "Features": f"{report['features']}, {report['features_width']} wide, {report['features_digest']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
    }


def direction_of(scores: Collection[str], features: str) -> str:
    """A sentence that says for which scores lower is better, and for which higher."""
    high = [title_of(name, features) for name in scores if name in HIGHER_IS_BETTER]
    low = [title_of(name, features) for name in scores if name not in HIGHER_IS_BETTER]
    if not high:
        return "Lower is better."
    return f"Higher is better for {', '.join(high)}" + (f", lower for {', '.join(low)}." if low else ".")


def _about_spreads(evaluation: Evaluation) -> str:
    if evaluation.repeats > 1:
        return (
            f"Each score is the mean over {evaluation.repeats} parts of consecutive images, each scored by itself. "
            "± is the standard error of this mean. Δ is the difference from the first row, computed part by part."
        )
    if evaluation.bootstrap is None:
        resampled = " For the Inception score it is over resamples." if "is" in evaluation.rows[0].scores else ""
        return (
            "± is the standard error over which images were drawn, with the reference fixed; it is computed from how "
            f"much each image moves the score.{resampled} "
            "Δ is the difference from the first row; folders of equally many images are compared image by image."
        )
    if evaluation.bootstrap < 2:
        return "Spreads were not computed."
    return (
        f"± is the standard error over {evaluation.bootstrap} resamples of the samples, with the reference fixed. "
        "Δ is the difference from the first row; folders of equally many images are resampled in pairs."
    )
