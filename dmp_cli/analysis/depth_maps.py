"""Pictures of numbers over timesteps and depth, as PNG bytes. Letters: T timesteps, L blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..report import FAINT, HEAD, INK, TEXT, Box, add_axes, hide_spines, new_figure, png_bytes
from .gate_weights import noisiest_first, timestep_in_words

_MAP = (2.3, 2.6)  # width and height of one map, in inches
_STEP = 3.7  # inches from one map to the next
SMALL = 7.5  # points
_MIN_WIDTH = 7.4  # inches, so that the title fits


def draw_depth_maps(
    panels: Mapping[str, np.ndarray],
    timesteps: np.ndarray,
    *,
    title: str,
    ends: Mapping[str, tuple[float, float]] | None = None,
) -> bytes:
    """Draw ``panels``, name -> values (T, L), as maps side by side.

    Blocks run from left to right, timesteps from bottom to top, the noisiest on top. Each map has its own colour
    bar: between the ``ends`` of its name, else from its lowest to its highest value. ``timesteps`` (T,) may be in any
    order.
    """
    order = noisiest_first(np.asarray(timesteps))[::-1]
    steps = np.asarray(timesteps)[order]
    figure = new_figure(max(0.6 + _STEP * len(panels), _MIN_WIDTH), 3.9)
    figure.text(
        0.12 / figure.get_figwidth(), 0.94, title, fontsize=HEAD, fontweight="bold", color=INK, parse_math=False
    )
    for place, (name, values) in enumerate(panels.items()):
        left = 0.65 + place * _STEP
        axes = add_axes(figure, Box(left, 0.75, *_MAP))
        low, high = (ends or {}).get(name, (None, None))
        how: dict[str, Any] = {"aspect": "auto", "origin": "lower", "cmap": "viridis", "interpolation": "nearest"}
        image = axes.imshow(values[order], vmin=low, vmax=high, **how)
        axes.set_title(name, loc="left", fontsize=TEXT, color=INK, parse_math=False)
        blocks = np.unique(np.linspace(0, values.shape[1] - 1, min(values.shape[1], 7)).round().astype(int))
        rows = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 6)).round().astype(int))
        axes.set_xticks(blocks, [str(block) for block in blocks])
        axes.set_yticks(rows, [timestep_in_words(steps[row]) for row in rows])
        axes.tick_params(labelsize=SMALL, length=2, width=0.5, colors=FAINT)
        axes.set_xlabel("block", fontsize=SMALL, color=FAINT)
        if place == 0:
            axes.set_ylabel("image  ←  timestep  →  noise", fontsize=SMALL, color=FAINT)
        hide_spines(axes, ("top", "right", "bottom", "left"))
        bar: Any = figure.colorbar(image, cax=add_axes(figure, Box(left + _MAP[0] + 0.1, 0.75, 0.1, _MAP[1])))
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=SMALL, length=2, width=0.5, colors=FAINT)
    return png_bytes(figure)
