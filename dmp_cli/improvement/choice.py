"""The scale W that the choosing half of the reference prefers, read from the scores of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation import HIGHER_IS_BETTER
from ..storage import read_json


@dataclass(frozen=True)
class Choice:
    """The scores by which a scale is chosen."""

    metric: str
    base: float  # score of the backbone itself
    scores: dict[float, float]  # of each scale

    @property
    def scale(self) -> float | None:
        """The scale with the best score; None: the backbone itself scores best."""
        sign = -1 if self.metric in HIGHER_IS_BETTER else 1
        best = min(self.scores, key=lambda scale: sign * self.scores[scale])
        return best if sign * self.scores[best] < sign * self.base else None

    @property
    def untried(self) -> list[str]:
        """Where a scale that was not tried may be better still: beyond the smallest one, the largest one, or both."""
        ends = (("smallest", "smaller", min), ("largest", "larger", max))
        return [
            f"W = {self.scale:g} is the {end} scale that was tried; a {further} one may be better (--scales)."
            for end, further, find in ends
            if self.scale is not None and self.scale == find(self.scores)
        ]


def read_choice(scores: Path, scales: Sequence[float]) -> Choice:
    """The choice that a ``report.json`` of ``dmp eval`` gives: first the backbone, then one row for each scale."""
    rows = read_json(scores / "report.json")["rows"]
    metric = next(iter(rows[0]["scores"]))
    base, *values = (float(row["scores"][metric]["value"]) for row in rows)
    return Choice(metric, base, dict(zip(scales, values, strict=True)))
