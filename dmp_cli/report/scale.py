"""A colour bar as a picture of its own, for pictures that are drawn without one."""

from __future__ import annotations

import math

import numpy as np

from .canvas import FAINT, INK, TEXT, Box, add_axes, hide_spines, new_figure, png_bytes


def draw_scale(low: float, high: float, *, what: str, colours: str = "gray") -> bytes:
    """Draw a horizontal colour bar from ``low`` to ``high`` with its numbers, as PNG bytes. ``what`` is above it."""
    figure = new_figure(4.0, 0.75)
    axes = add_axes(figure, Box(0.3, 0.3, 3.4, 0.14))
    axes.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=colours, extent=(0, 1, 0, 1))
    digits = 2 - math.floor(math.log10(high - low)) if high > low else 6
    places = np.linspace(0, 1, 5 if high > low else 2)
    axes.set_xticks(places, [f"{round(low + place * (high - low), digits):g}" for place in places])
    axes.set_yticks([])
    axes.tick_params(labelsize=TEXT, length=2, width=0.5, colors=FAINT, pad=1.5)
    axes.set_title(what, loc="left", fontsize=TEXT, color=INK, pad=4, parse_math=False)
    hide_spines(axes, ())
    return png_bytes(figure)
