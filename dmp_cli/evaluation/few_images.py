"""Too few images: which distances they make too large, and one sentence for all folders where that is so.

A Frechet distance falls as the number of images grows. With no more images than features its covariance is singular.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .metrics import title_of
from .results import Evaluation

_LARGE_BIAS = 0.1  # the part of a distance that is worth a warning
_NAMED = 3  # folders that a sentence names, and different numbers that it gives; a grid of arms has hundreds


@dataclass(frozen=True)
class Counted:
    """A folder of samples, by how many images it has, and its distance."""

    name: str
    count: int
    each: int  # images of a part, where the score is a mean over parts; else all of them
    value: float
    bias: float | None  # how much lower it would be with many more images; None: not computed

    def is_singular(self, width: int) -> bool:
        """Whether the covariance of ``width`` features is singular."""
        return self.each <= width

    @property
    def is_biased(self) -> bool:
        """Whether a good part of the distance is due to there being few images."""
        return self.bias is not None and self.bias > _LARGE_BIAS * self.value


def warn_of_few(folders: Sequence[Counted], *, width: int, title: str) -> list[str]:
    """At most two sentences: on singular covariances, and on the part of a distance that is due to few images."""
    found, count = [], len(folders)
    singular = [(one.name, f"{one.each:,} images for {width:,} features") for one in folders if one.is_singular(width)]
    if singular:
        found.append(f"{'; '.join(together(singular, of=count))}: the covariance is singular, so {title} is biased")
    biased = [one for one in folders if one.is_biased]
    if biased:
        parts = together(((one.name, _part(one, width)) for one in biased), of=count)
        told = "; ".join(parts) if len(parts) <= _NAMED else _range(biased, title, of=count)
        found.append(f"{told} is due to having so few images: {title} falls as the number grows")
    return found


def _range(folders: Sequence[Counted], title: str, *, of: int) -> str:
    shares = [100 * min(1.0, (one.bias or 0) / one.value) for one in folders]
    counts = sorted({one.count for one in folders})
    images = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    part = f"{min(shares):.0f} to {max(shares):.0f} % of {title} with {images} images"
    return f"{_some([one.name for one in folders], of=of)}: {part}"


def few_in(evaluation: Evaluation, names: Mapping[str, str] | None = None) -> list[Counted]:
    """The folders of an evaluation by their distance, called by ``names`` of their paths; empty: it has no distance."""
    rows = [row for row in evaluation.rows if "fid" in row.scores]
    return [
        Counted(
            (names or {}).get(row.samples, row.samples),
            row.count,
            row.count // (evaluation.repeats or 1),
            row.scores["fid"].value,
            row.scores["fid"].bias,
        )
        for row in rows
    ]


def few_of(report: Mapping[str, Any], names: Sequence[str]) -> tuple[list[int], list[str]]:
    """The rows of a ``report.json`` with too few images for their distance, and notes that call them by ``names``."""
    rows, repeats = report["rows"], report.get("repeats") or 1
    if "fid" not in rows[0]["scores"]:
        return [], []
    counted = [
        Counted(name, row["count"], row["count"] // repeats, score["value"], score.get("bias"))
        for name, row in zip(names, rows, strict=True)
        for score in (row["scores"]["fid"],)
    ]
    width, title = report["features_width"], title_of("fid", report["features"])
    few = [at for at, one in enumerate(counted) if one.is_singular(width) or one.is_biased]
    return few, [f"{told}." for told in warn_of_few(counted, width=width, title=title)]


def _part(one: Counted, width: int) -> str:
    assert one.bias is not None
    if one.bias >= one.value:
        return f"as good as all of {one.value:.4g} with {one.count:,} images"
    about = "at least" if one.count <= width else "about"  # with a singular covariance part of it is not seen
    return f"{about} {one.bias:.2g} of {one.value:.4g} with {one.count:,} images"


def together(told: Iterable[tuple[str, str]], *, of: int) -> list[str]:
    """Sentences on folders, ``(name, text)`` each: those of which the same is said share one, ``a, b: 12 images``.

    ``of``: how many folders there are.
    """
    by_text: dict[str, list[str]] = {}
    for name, text in told:
        by_text.setdefault(text, []).append(name)
    return [f"{_some(names, of=of)}: {text}" for text, names in by_text.items()]


def _some(names: Sequence[str], *, of: int) -> str:
    """Names in a sentence: of many the first and how many more, or that it is all of them."""
    more = len(names) - _NAMED
    if more <= 0:
        return ", ".join(names)
    return f"all {of:,}" if len(names) == of else f"{', '.join(names[:_NAMED])} and {more:,} more"
