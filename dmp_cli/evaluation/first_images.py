"""The first images of folders of samples, side by side in one picture with a row for each folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..config import MAX_PIXELS
from ..data import BOUNDS, Bounds, decode
from ..report import draw_image_grid
from .samples import find_samples

_SHOWN_PIXELS = 1 << 25  # of all images of a page


def read_first_images(
    folder: Path, *, count: int, max_pixels: int = MAX_PIXELS, bounds: Bounds = BOUNDS, folders: int = 1
) -> list[np.ndarray]:
    """Read the first ``count`` samples of a folder or zip, in sorted order; uint8 (H, W, 3) each.

    They are shown with those of ``folders`` folders, this one among them: of so many that a page would be too large,
    images are made smaller by a whole factor.
    """
    source, indices = find_samples(folder, bounds=bounds)

    def read(data: bytes, name: str) -> Image.Image:
        image = decode(data, channels=3, name=name, max_pixels=max_pixels)
        factor = math.ceil(math.sqrt(folders * count * image.width * image.height / _SHOWN_PIXELS))
        return image.reduce(factor) if folders > 1 and factor > 1 else image

    return [np.asarray(read(source.read(i), name=source.name(i))) for i in indices[:count].tolist()]


def draw_rows(rows: Sequence[Sequence[np.ndarray]], *, labels: Sequence[str]) -> bytes:
    """Draw one labelled row of images for each folder, as PNG. All rows are cut to the length of the shortest."""
    columns = min(len(row) for row in rows)
    images = [image for row in rows for image in row[:columns]]
    return draw_image_grid(images, rows=len(rows), columns=columns, labels=labels)
