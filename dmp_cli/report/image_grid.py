"""A grid of images as one labelled PNG. The pixels of the images are not changed, unless one asks for smooth ones."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

_MIN_TILE = 64  # pixels
_MIN_FONT = 13  # pixels
_PAPER, _EMPTY, _INK = (255, 255, 255), (236, 236, 236), (34, 34, 34)
_ELLIPSIS = "..."  # PIL's own font lacks the one-character form


class _Labels(NamedTuple):
    """The texts around the tiles, and their font."""

    rows: Sequence[str]  # at the left
    heads: Sequence[str]  # above
    tiles: Sequence[str]  # below each image
    font: FreeTypeFont


class _Layout(NamedTuple):
    """The sizes of the parts of a grid, in pixels."""

    width: int  # of a tile
    height: int  # of a tile
    left: int  # width of the row labels
    top: int  # height of the heads
    below: int  # height of the label below a tile
    gap: int  # between tiles

    def place(self, row: int, column: int) -> tuple[int, int]:
        """Left and top edge of a tile."""
        step = self.height + self.below + self.gap
        return self.left + self.gap + column * (self.width + self.gap), self.top + self.gap + row * step

    def size(self, rows: int, columns: int) -> tuple[int, int]:
        """Width and height of the picture."""
        return self.place(rows, columns)


def draw_image_grid(
    images: np.ndarray | Sequence[np.ndarray],
    *,
    rows: int,
    columns: int,
    labels: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    scale: int | None = None,
    smooth: bool = False,
) -> bytes:
    """Draw the first rows * columns of ``images`` as one PNG.

    ``images`` are uint8, an array (n, H, W, C) or a list of (H, W, C), with C 1 or 3. ``labels`` are one per image,
    drawn below it, or one per row, drawn at the left; ``heads`` are one per column, drawn above it. Each pixel is
    repeated ``scale`` times in both directions. By default the shorter side becomes at least 64 pixels, and up to 128
    where the labels need it. ``smooth`` interpolates between pixels instead of repeating them, so that one sees what
    images of few pixels show. Images of several sizes are centred in their tiles; tiles without an image stay empty.
    """
    from PIL import Image, ImageDraw

    tiles = [_as_tile(image) for image in images[: rows * columns]]
    assert tiles, "a grid shows at least one image"
    factor = scale or _pick_scale(tiles, labels=labels if labels and len(labels) == len(tiles) else ())
    way = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    tiles = [tile.resize((tile.width * factor, tile.height * factor), way) for tile in tiles]
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    words = _sort_labels(labels, heads, num_images=len(tiles), rows=rows, side=min(width, height))
    layout = _lay_out(width, height, words=words)
    canvas = Image.new("RGB", layout.size(rows, columns), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for index in range(rows * columns):
        left, top = layout.place(*divmod(index, columns))
        draw.rectangle((left, top, left + width - 1, top + height - 1), fill=_EMPTY)
        if index < len(tiles):
            tile = tiles[index]
            canvas.paste(tile, (left + (width - tile.width) // 2, top + (height - tile.height) // 2))
    _write_labels(draw, words, layout=layout, columns=columns)
    return _png(canvas)


def _as_tile(image: np.ndarray) -> Image:
    from PIL import Image

    assert image.dtype == np.uint8, "images are uint8"
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    return Image.fromarray(image).convert("RGB")


def _pick_scale(tiles: Sequence[Image], *, labels: Sequence[str]) -> int:
    """The smallest factor with which each side has 64 pixels or more and, up to 128 pixels, the labels fit."""
    from PIL import ImageFont

    longest = max((ImageFont.load_default(_MIN_FONT).getlength(label) for label in labels), default=0)
    wanted = max(_MIN_TILE, min(math.ceil(longest), 2 * _MIN_TILE))
    return math.ceil(wanted / min(min(tile.size) for tile in tiles))


def _sort_labels(
    labels: Sequence[str] | None, heads: Sequence[str] | None, *, num_images: int, rows: int, side: int
) -> _Labels:
    from PIL import ImageFont

    font = ImageFont.load_default(min(22, max(_MIN_FONT, side // 8)))
    labels = list(labels or ())
    assert len(labels) in (0, num_images, rows), "one label per image or one per row"
    by_row = len(labels) == rows != num_images
    return _Labels(labels if by_row else (), list(heads or ()), () if by_row else labels, font)  # type: ignore[arg-type]


def _lay_out(width: int, height: int, *, words: _Labels) -> _Layout:
    line = round(1.5 * words.font.size)
    margin = round(0.8 * words.font.size)
    longest = max((round(words.font.getlength(label)) for label in words.rows), default=0)
    return _Layout(
        width=width,
        height=height,
        left=longest + margin if words.rows else 0,
        top=line if words.heads else 0,
        below=line if words.tiles else 0,
        gap=max(2, min(width, height) // 32),
    )


def _write_labels(draw: ImageDraw, words: _Labels, *, layout: _Layout, columns: int) -> None:
    for row, label in enumerate(words.rows):
        _, top = layout.place(row, 0)
        right = layout.left - round(0.3 * words.font.size)
        draw.text((right, top + layout.height / 2), label, fill=_INK, font=words.font, anchor="rm")
    for column, head in enumerate(words.heads):
        left, top = layout.place(0, column)
        at = (left + layout.width / 2, top - layout.gap - 0.3 * words.font.size)
        draw.text(at, _fit(head, words.font, layout.width), fill=_INK, font=words.font, anchor="ms")
    for index, label in enumerate(words.tiles):
        left, top = layout.place(*divmod(index, columns))
        at = (left + layout.width / 2, top + layout.height + 1.1 * words.font.size)
        draw.text(at, _fit(label, words.font, layout.width), fill=_INK, font=words.font, anchor="ms")


def _fit(label: str, font: FreeTypeFont, width: int) -> str:
    """The label, shortened with dots if it is wider than ``width`` pixels."""
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + _ELLIPSIS) > width:
        label = label[:-1]
    return label.rstrip() + _ELLIPSIS


def _png(canvas: Image) -> bytes:
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
