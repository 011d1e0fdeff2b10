"""A parallel plot: one vertical axis for each option, one line across all of them for each trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .canvas import FAINT, INK, LINES, TEXT, new_figure, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAINT_LINE = "#c4c4c4"


class Column(NamedTuple):
    """One vertical axis. Heights run from 0 at its bottom to 1 at its top."""

    name: str
    heights: Sequence[float | None]  # of each line; None: it does not cross this axis
    ticks: Sequence[tuple[float, str]]  # height and label


def draw_parallel(
    columns: Sequence[Column], *, shades: Sequence[float | None], marked: Mapping[int, str] | None = None
) -> bytes:
    """Draw the lines across all columns, as PNG bytes.

    ``shades`` colours each line: 0 for the best, 1 for the worst, None for one that did not run to its end, which is
    drawn dashed. ``marked`` lines are drawn thick, with their name beside the last axis.
    """
    from matplotlib import colormaps

    marked = marked or {}
    figure = new_figure(max(4.6, 1.15 * len(columns) + 1.2), 3.6)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    colours = colormaps["viridis"]
    style: dict[str, Any]
    for line, shade in sorted(enumerate(shades), key=lambda item: (item[0] in marked, -(item[1] or 2))):
        crossed = [(x, column.heights[line]) for x, column in enumerate(columns)]
        points = [(x, height) for x, height in crossed if height is not None]
        if line in marked:
            style = {"color": LINES[list(marked).index(line) % len(LINES)], "linewidth": 2.2, "zorder": 3}
        elif shade is None:
            style = {"color": _FAINT_LINE, "linewidth": 0.9, "linestyle": "--"}
        else:
            style = {"color": colours(0.9 * shade), "linewidth": 1.0, "alpha": 0.75}
        if line in marked:
            style |= {"marker": "o", "markersize": 3.5}
        axes.plot([x for x, _ in points], [height for _, height in points], **style)
    _draw_columns(axes, columns)
    _name_marked(axes, columns[-1], marked)
    return png_bytes(figure)


def _draw_columns(axes: Axes, columns: Sequence[Column]) -> None:
    for x, column in enumerate(columns):
        axes.plot([x, x], [0, 1], color=FAINT, linewidth=0.8, zorder=0)
        axes.text(x, 1.07, column.name, ha="center", va="bottom", fontsize=TEXT, color=INK, parse_math=False)
        for height, label in column.ticks:
            axes.plot([x - 0.02, x + 0.02], [height, height], color=FAINT, linewidth=0.8, zorder=0)
            place: dict[str, Any] = {
                "ha": "right",
                "va": "center",
                "fontsize": TEXT - 1,
                "color": FAINT,
                "parse_math": False,
            }
            halo = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
            axes.text(x - 0.05, height, label, **place, bbox=halo, zorder=4)
    axes.set_ylim(-0.05, 1.16)
    axes.set_xlim(-0.55, len(columns) - 0.35)
    axes.set_axis_off()


def _name_marked(axes: Axes, last: Column, marked: Mapping[int, str]) -> None:
    """Write the names of the marked lines beside the last axis; names that would overlap are moved apart."""
    lowest = -1.0
    places = {line: last.heights[line] or 0.0 for line in marked}
    for line in sorted(marked, key=lambda line: places[line]):
        lowest = max(places[line], lowest + 0.08)
        colour = LINES[list(marked).index(line) % len(LINES)]
        x = axes.get_xlim()[1] - 0.6
        axes.text(x, lowest, marked[line], va="center", fontsize=TEXT, color=colour, parse_math=False)
