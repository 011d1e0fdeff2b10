"""A diagram of named curves, such as losses over training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .canvas import FAINT, HEAD, INK, LINES, TEXT, hide_spines, new_figure, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]]  # name -> (x, y)
_FEW_POINTS = 12  # curves with so few points get a marker at each of them


def draw_curves(
    series: Series, *, xlabel: str, ylabel: str, title: str | None = None, spans: Series | None = None
) -> bytes:
    """Draw named curves (x, y) in one diagram, as PNG bytes.

    Each name stands beside the end of its curve. Values that are not finite leave a gap. ``spans`` are bands around
    curves of the same names, such as intervals: (low, high) at the curve's x.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(4.8, 3.1)  # so small that its texts can be read on a phone's width
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    for place, (x, y) in enumerate(series.values()):
        heights = np.where(np.isfinite(np.asarray(y, float)), y, np.nan)
        few = len(x) <= _FEW_POINTS
        axes.plot(
            x,
            heights,
            color=LINES[place % len(LINES)],
            linestyle=("-", "--", ":")[place // len(LINES) % 3],
            linewidth=1.5 if few else 1.1,
            marker="o" if few else None,
            markersize=3.5,
        )
    for place, (name, (x, _)) in enumerate(series.items()):
        if spans is not None and name in spans:
            low, high = spans[name]
            axes.fill_between(x, low, high, color=LINES[place % len(LINES)], alpha=0.18, linewidth=0)
    if title:
        axes.set_title(title, loc="left", fontsize=HEAD, fontweight="bold", color=INK, parse_math=False)
    axes.set_xlabel(xlabel, fontsize=TEXT, color=INK, parse_math=False)
    axes.set_ylabel(ylabel, fontsize=TEXT, color=INK, parse_math=False)
    axes.tick_params(labelsize=TEXT, length=3, width=0.6, colors=FAINT)
    axes.grid(axis="y", color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,g}")
    hide_spines(axes, ("top", "right"))
    _name_ends(axes, series)
    return png_bytes(figure)


def _name_ends(axes: Axes, series: Series) -> None:
    """Write the name of each curve beside its last finite value; names that would overlap are moved apart."""
    bottom, top = axes.get_ylim()
    ends: list[tuple[float, str, str]] = []
    for line, (name, (_, y)) in zip(axes.lines, series.items(), strict=True):
        finite = np.asarray(y, float)
        finite = finite[np.isfinite(finite)]
        ends.append(((finite[-1] - bottom) / (top - bottom) if len(finite) else 0.0, name, line.get_color()))
    lowest = -np.inf
    for height, name, colour in sorted(ends):
        lowest = max(height, lowest + 0.06)
        place: dict[str, Any] = {"x": 1.015, "y": lowest, "va": "center", "transform": axes.transAxes}
        axes.text(s=name, **place, fontsize=TEXT, color=colour, parse_math=False)
