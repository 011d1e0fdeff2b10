"""Where in a picture the image lies that training shows: the size of the file, the cut, and the size of the image."""

from __future__ import annotations

from typing import NamedTuple

from ..config import Sides

STRIP = 64  # longest ratio of length to width that is resized whole


class Frame(NamedTuple):
    """How the centre of a picture was cut to an image; all in pixels."""

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


def central_frame(picture: Sides, target: Sides, *, mirrored: bool = False) -> Frame:
    """Where the centre of a picture lies that is cut to ``target``; ``mirrored``: in the mirrored picture."""
    resized = resizing_of(picture, target).resized
    rows, columns = resized.height - target.height, resized.width - target.width  # that are cut off
    left = columns // 2
    return Frame(*picture, rows // 2, columns - left if mirrored else left, *target)
