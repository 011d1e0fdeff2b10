"""What all figures share: colours, text sizes, new figures, axes placed in inches, and PNG bytes."""

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
# The colours of Okabe and Ito, which colour-blind readers can tell apart, without yellow, which is too pale for lines.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


class Box(NamedTuple):
    """A rectangle in inches from the figure's top left corner."""

    left: float
    top: float
    width: float
    height: float


def new_figure(width: float, height: float) -> Figure:
    """A white figure of ``width`` x ``height`` inches. Its own canvas keeps pyplot's global state unchanged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, box: Box) -> Axes:
    """Add axes that fill ``box`` to the figure."""
    width, height = figure.get_size_inches()
    bottom = height - box.top - box.height
    return figure.add_axes((box.left / width, bottom / height, box.width / width, box.height / height))


def hide_spines(axes: Axes, sides: Sequence[str]) -> None:
    """Hide these ``sides`` of the frame (top, right, bottom, left); draw the other sides thin and grey."""
    for side in sides:
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)


def png_bytes(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG, with ``DPI`` pixels per inch."""
    buffer = io.BytesIO()
    # The library's version is left out, so that the same numbers always give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
