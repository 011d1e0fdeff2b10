"""Too few images: which distances they make too large, and one sentence for all folders where that is so.

A Frechet distance falls as the number of images grows. With no more images than features its covariance is singular.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .results import Evaluation

_LARGE_BIAS = 0.1  # the part of a distance that is worth a warning


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
    found = []
    singular = [(one.name, f"{one.each:,} images for {width:,} features") for one in folders if one.is_singular(width)]
    if singular:
        found.append(f"{'; '.join(together(singular))}: the covariance is singular, so {title} is biased")
    biased = [(one.name, _part(one, width)) for one in folders if one.is_biased]
    if biased:
        falls = f"{title} falls as the number grows"
        found.append(f"{'; '.join(together(biased))} is due to having so few images: {falls}")
    return found


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


def _part(one: Counted, width: int) -> str:
    assert one.bias is not None
    if one.bias >= one.value:
        return f"as good as all of {one.value:.4g} with {one.count:,} images"
    about = "at least" if one.count <= width else "about"  # with a singular covariance part of it is not seen
    return f"{about} {one.bias:.2g} of {one.value:.4g} with {one.count:,} images"


def together(told: Iterable[tuple[str, str]]) -> list[str]:
    """Sentences on folders, ``(name, text)`` each: those of which the same is said share one, ``a, b: 12 images``."""
    by_text: dict[str, list[str]] = {}
    for name, text in told:
        by_text.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in by_text.items()]
