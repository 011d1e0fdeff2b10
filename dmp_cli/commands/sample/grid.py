"""The picture that shows the first images of a folder: whether it can be drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config import MAX_PIXELS, sides_of
from ...errors import ConfigError

if TYPE_CHECKING:
    from ...pipeline import Loaded


def check_grid(grid: tuple[int, int], loaded: Loaded) -> None:
    """Raise ConfigError, before images are drawn, for a grid that would be too large a picture."""
    from ...latents import image_size

    (rows, columns), sides = grid, sides_of(image_size(loaded.codec, loaded.backbone))
    pixels = rows * columns * sides.height * sides.width
    if pixels > MAX_PIXELS:
        raise ConfigError(
            f"--grid {rows}x{columns}: a picture of {pixels:,} pixels, and at most {MAX_PIXELS:,} are drawn"
        )
