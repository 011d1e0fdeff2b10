"""Where in a picture the image lies that training shows: the size of the file, the cut, and the size of the image."""

from __future__ import annotations

from typing import NamedTuple

from ..config import Sides

STRIP = 64  # longest ratio of length to width that is resized whole


class Cut(NamedTuple):
    """Where an image is cut out of what its picture was resized to; each in [0, 1), of all places that there are."""

    down: float
    right: float


class Frame(NamedTuple):
    """How a picture was cut to an image; all in pixels."""

    height: int  # of the picture
    width: int
    top: int  # of the cut, in the picture as it was resized
    left: int
    target_height: int  # of the image
    target_width: int


class Resizing(NamedTuple):
    """The sizes that a picture takes on its way to an image."""

    cut: Sides  # of the picture without the ends of a long strip
    halvings: int  # how often it is halved
    resized: Sides  # after these and the last, bicubic resizing: it just covers the image


def resizing_of(picture: Sides, target: Sides) -> Resizing:
    """How a picture becomes an image: as in ADM and DiT for a square."""
    longest = STRIP * min(picture)
    cut = now = Sides(min(picture.height, longest), min(picture.width, longest))
    halvings = 0
    while now.width >= 2 * target.width and now.height >= 2 * target.height:
        now, halvings = now.over(2), halvings + 1
    scale = max(target.width / now.width, target.height / now.height)
    return Resizing(cut, halvings, Sides(round(now.height * scale), round(now.width * scale)))


def place_of(resized: Sides, target: Sides, cut: Cut | None = None) -> tuple[int, int]:
    """Top and left of an image in what its picture was resized to; without a ``cut`` it is the centre."""
    rows, columns = resized.height - target.height, resized.width - target.width  # that are cut off
    if cut is None:
        return rows // 2, columns // 2
    return int(cut.down * (rows + 1)), int(cut.right * (columns + 1))


def find_frame(picture: Sides, target: Sides, *, mirrored: bool = False, cut: Cut | None = None) -> Frame:
    """Where an image lies in its picture that is cut to ``target``; ``mirrored``: in the mirrored picture."""
    resized = resizing_of(picture, target).resized
    top, left = place_of(resized, target, cut)
    return Frame(*picture, top, resized.width - target.width - left if mirrored else left, *target)
