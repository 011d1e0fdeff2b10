"""Differences as dots on one axis, each with its interval, drawn by the page itself, sharp at any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What bold cells of a table are, where they are differences; see Table.
EXCLUDES_ZERO = ("Differences whose 95 % interval excludes zero are", "excludes zero")
_MARGIN = 0.06  # share of the axis that is left free at each end


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One difference. ``hover`` is the whole name where ``name`` is a short one.

    Without ``has_ends`` there is no interval: ``low`` and ``high`` are the value, and the dot is hollow.
    """

    name: str
    value: float
    low: float
    high: float
    text: str
    hover: str = ""
    has_ends: bool = True

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.has_ends and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Differences on one axis that shows zero. ``caption`` says of what they are, and which side is better."""

    rows: Sequence[Interval]
    caption: str

    def place(self, value: float) -> float:
        """Where a value lies on the axis, in per cent of its width."""
        low, high = self._ends()
        share = (value - low) / (high - low)
        return round(100 * (_MARGIN + (1 - 2 * _MARGIN) * share), 3)

    def _ends(self) -> tuple[float, float]:
        ends = [0.0, *(end for row in self.rows for end in (row.low, row.high, row.value))]
        low, high = min(ends), max(ends)
        return (low, high) if high > low else (low - 1, high + 1)
