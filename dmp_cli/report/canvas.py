"""A blank matplotlib figure, axes placed in inches, PNG bytes; the colours and sizes that all figures share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
INK, FAINT = "#222222", "#6b6b6b"
SMALL, TEXT, HEAD = 6.5, 8.0, 11.0  # points
# Okabe and Ito's colours, which stay apart for colour-blind readers; yellow, too pale for a line, is left out.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


class Box(NamedTuple):
    """A rectangle in inches from the figure's top left corner."""

    left: float
    top: float
    width: float
    height: float


def new_figure(width: float, height: float) -> Figure:
    """A white figure in inches with its own canvas, so that pyplot's global state stays untouched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, box: Box) -> Axes:
    """Axes that fill ``box``."""
    width, height = figure.get_size_inches()
    bottom = height - box.top - box.height
    return figure.add_axes((box.left / width, bottom / height, box.width / width, box.height / height))


def hide_spines(axes: Axes, sides: Sequence[str]) -> None:
    """Leave out the frame's ``sides`` (top, right, bottom, left); the others become thin and grey."""
    for side in sides:
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)


def png_bytes(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG, DPI pixels an inch."""
    buffer = io.BytesIO()
    # Without the library's version in it the same numbers give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
