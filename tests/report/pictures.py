"""Reads PNG bytes as numbers."""

import io

import numpy as np
from PIL import Image


def pixels(png):
    """The pixels (H, W, 3) as signed integers, which can be subtracted."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)
