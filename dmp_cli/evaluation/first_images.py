"""The first images of folders of samples, side by side in one picture with a row for each folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..config import MAX_PIXELS
from ..data import BOUNDS, Bounds, decode
from ..report import draw_image_grid
from .samples import find_samples


def read_first_images(
    folder: Path, *, count: int, max_pixels: int = MAX_PIXELS, bounds: Bounds = BOUNDS
) -> list[np.ndarray]:
    """Read the first ``count`` samples of a folder or zip, in sorted order; uint8 (H, W, 3) each."""
    source, indices = find_samples(folder, bounds=bounds)
    read = partial(decode, channels=3, max_pixels=max_pixels)
    return [np.asarray(read(source.read(i), name=source.name(i))) for i in indices[:count].tolist()]


def draw_rows(rows: Sequence[Sequence[np.ndarray]], *, labels: Sequence[str]) -> bytes:
    """Draw one labelled row of images for each folder, as PNG. All rows are cut to the length of the shortest."""
    columns = min(len(row) for row in rows)
    images = [image for row in rows for image in row[:columns]]
    return draw_image_grid(images, rows=len(rows), columns=columns, labels=labels)
