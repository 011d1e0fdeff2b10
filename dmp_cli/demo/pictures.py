"""The pictures of the demo: the same noise in every set of samples, and base and guided samples large."""

from __future__ import annotations

import numpy as np

from ..evaluation import draw_rows, read_first_images
from ..report import draw_image_grid
from ..storage import read_json
from .story import BASE, GUIDED, Story

PER_ROW = 10  # images of each set: one of every digit
_LARGE = 12  # times as many pixels in each direction, interpolated
_PAIRS = 2  # rows of the base, and as many guided ones


def draw_side_by_side(story: Story) -> bytes:
    """Draw one row of images for each set of samples; a column starts from one noise (paper, Figure 5). PNG."""
    rows = [read_first_images(story.samples(name), count=PER_ROW) for name in story.sets()]
    return draw_rows(rows, labels=list(story.sets().values()))


def draw_before_after(story: Story) -> bytes:
    """Draw base and guided samples from the same noise, large: of each digit those that change most.

    A row of the base stands above the guided row of the same noise, twice, with both distances. PNG.
    """
    report = read_json(story.scores / "report.json")["rows"]
    values = {name: row["scores"]["fid"]["value"] for name, row in zip(story.sets(), report, strict=True)}
    sets = {
        name: np.stack(read_first_images(story.samples(name), count=story.num_images)) for name in (BASE, GUIDED)
    }  # each (n, H, W, 3)
    change = np.abs(sets[BASE].astype(int) - sets[GUIDED]).mean((1, 2, 3))  # (n,)
    # samples take the digits in turn, so that every tenth is of one digit
    order = [digit + PER_ROW * np.argsort(-change[digit::PER_ROW], kind="stable") for digit in range(PER_ROW)]
    rows = [[sets[name][one[place]] for one in order] for place in range(_PAIRS) for name in (BASE, GUIDED)]
    labels = [f"{name}: {values[name]:.2f}" for name in (BASE, GUIDED)] + [BASE, GUIDED] * (_PAIRS - 1)
    images = [image for row in rows for image in row]
    return draw_image_grid(images, rows=len(rows), columns=PER_ROW, labels=labels, scale=_LARGE, smooth=True)
