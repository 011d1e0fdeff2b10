"""PNG bytes as numbers."""

import io

import numpy as np
from PIL import Image


def pixels(png):
    """(H, W, 3) as integers that can be subtracted."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)
