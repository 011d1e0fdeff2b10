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
_MOST = 12  # curves with a name; a diagram has no room for more
_OTHERS = "#cccccc"
_LINE, _HIGHEST = 0.06, 1.04  # height of a name and of the highest one's middle, of the diagram's height


def draw_curves(
    series: Series, *, xlabel: str, ylabel: str, title: str | None = None, spans: Series | None = None
) -> bytes:
    """Draw named curves (x, y) in one diagram, as PNG bytes.

    Each name stands beside the end of its curve. Of more than twelve curves, those that end lowest and highest have
    names, and the others are grey. Values that are not finite leave a gap. ``spans`` are bands around
    curves of the same names, such as intervals: (low, high) at the curve's x.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(4.8, 3.1)  # so small that its texts can be read on a phone's width
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    named = _named(series)
    looks = {name: (LINES[at % len(LINES)], ("-", "--", ":")[at // len(LINES) % 3]) for at, name in enumerate(named)}
    for name, (x, y) in series.items():
        heights = np.where(np.isfinite(np.asarray(y, float)), y, np.nan)
        few, is_named = len(x) <= _FEW_POINTS, name in looks
        colour, style = looks.get(name, (_OTHERS, "-"))
        axes.plot(
            x,
            heights,
            color=colour,
            linestyle=style,
            linewidth=1.5 if few else 1.1,
            marker="o" if few else None,
            markersize=3.5,
            zorder=2 if is_named else 1.5,
        )
        if spans is not None and name in spans and is_named:
            low, high = spans[name]
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
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
    _name_ends(axes, series, looks)
    return png_bytes(figure)


def _named(series: Series) -> list[str]:
    """The curves that have a name and a colour: all, or of many those that end lowest and highest."""
    if len(series) <= _MOST:
        return list(series)
    ends = {name: end for name, (_, y) in series.items() if (end := _end(y)) is not None}
    order = sorted(ends, key=ends.__getitem__)
    chosen = {*order[: _MOST // 2], *order[-(_MOST // 2) :]}
    return [name for name in series if name in chosen]


def _end(y: Sequence[float] | np.ndarray) -> float | None:
    """The last finite value; None: there is none."""
    finite = np.asarray(y, float)
    finite = finite[np.isfinite(finite)]
    return float(finite[-1]) if len(finite) else None


def _name_ends(axes: Axes, series: Series, looks: Mapping[str, tuple[str, str]]) -> None:
    """Write the name of each curve beside its last finite value; names that would overlap are moved apart."""
    bottom, top = axes.get_ylim()
    found = {name: _end(y) for name, (_, y) in series.items()}
    heights = {name: 0.0 if end is None else (end - bottom) / (top - bottom) for name, end in found.items()}
    ends = [(heights[name], name, colour) for name, (colour, _) in looks.items()]
    if others := [height for name, height in heights.items() if name not in looks]:
        ends.append((float(np.median(others)), f"{len(others):,} more", FAINT))
    ends.sort()
    for place, (_, name, colour) in zip(_apart([end[0] for end in ends]), ends, strict=True):
        where: dict[str, Any] = {"x": 1.015, "y": place, "va": "center", "transform": axes.transAxes}
        axes.text(s=name, **where, fontsize=TEXT, color=colour, parse_math=False)


def _apart(heights: Sequence[float]) -> list[float]:
    """Rising heights moved up until they do not overlap, and down again from the top of the diagram."""
    found, lowest, highest = list(heights), -np.inf, _HIGHEST + _LINE
    for at, height in enumerate(found):
        found[at] = lowest = max(height, lowest + _LINE)
    for at in reversed(range(len(found))):
        found[at] = highest = min(found[at], highest - _LINE)
    return found
