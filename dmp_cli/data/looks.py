"""What the images of a data set look like, from a few of them: sizes and colours, for people who start a training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..config import MAX_PIXELS, sides_of
from ..errors import ConfigError, DataError
from .decoding import decode
from .source import ImageSource

_LOOKED_AT = 16  # images, spread evenly: to open all of a million would take minutes
_COLOURFUL = 8  # levels; channels of a pixel that differ by no more come from rounding, as in a grey JPEG


class Looks(NamedTuple):
    """The sizes and colours of some images of a data set; no sizes where none of them can be read."""

    total: int  # images in the data set
    sizes: list[tuple[int, int]]  # width and height in pixels of each image that was looked at
    colourful: list[str]  # names of those with colours; the others are grey, whatever their files' mode

    def check_colours(self, *, channels: int, allowed: bool) -> None:
        """Raise ConfigError where colours would be lost to a backbone of one channel, unless that is ``allowed``."""
        if channels == 1 and self.colourful and not allowed:
            raise ConfigError(
                f"this backbone is for grey images, and {self.colourful[0]} has colours",
                hint="Train on the pictures as grey ones with --grey, or give another --backbone.",
            )

    def in_words(self, *, image_size: int | str | None, channels: int) -> str:
        """What becomes of them for a backbone: ``8 images 178x218 RGB, centre square, to 64x64``.

        ``image_size`` is None where each keeps its own shape.
        """
        parts = [f"{self.total:,} image{'' if self.total == 1 else 's'}"]
        if self.sizes:
            smallest, largest = (f"{width}x{height}" for width, height in _extremes(self.sizes))
            parts.append(smallest if smallest == largest else f"{smallest} to {largest}")
            grey = "grey" if len(self.colourful) < len(self.sizes) else ""
            parts.append(" and ".join(part for part in ("RGB" if self.colourful else "", grey) if part))
            parts += [f"({len(self.sizes)} looked at)"] if len(self.sizes) < self.total else []
        changes = ["as grey"] if channels == 1 and self.colourful else []
        if image_size is None:
            return ", ".join([" ".join(parts), *changes])
        sides = sides_of(image_size)
        scales = [max(sides.width / width, sides.height / height) for width, height in self.sizes]
        cut = "centre square" if sides.height == sides.width else "centre"
        changes += [cut] if any(width * sides.height != height * sides.width for width, height in self.sizes) else []
        if any(scale != 1 for scale in scales):
            changes.append(f"{'enlarged ' if all(scale > 1 for scale in scales) else ''}to {sides.in_words}")
        return ", ".join([" ".join(parts), *changes])


def _extremes(sizes: list[tuple[int, int]]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The smallest and the largest size, by area."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return ordered[0], ordered[-1]


def look_at(images: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Looks:
    """Decode a few images, spread evenly over all. Those that cannot be read are passed over here."""
    sizes, colourful = [], []
    for index in dict.fromkeys(np.linspace(0, len(images) - 1, _LOOKED_AT).round().astype(int).tolist()):
        name = images.name(index)
        try:
            image = decode(images.read(index), channels=3, name=name, max_pixels=max_pixels)
        except DataError:
            continue
        sizes.append(image.size)
        pixels = np.asarray(image).astype(np.int16)  # (H, W, 3)
        if int((pixels.max(-1) - pixels.min(-1)).max()) > _COLOURFUL:
            colourful.append(name)
    return Looks(len(images), sizes, colourful)
