"""The size of the images that a backbone makes through a codec, and how it is changed."""

from __future__ import annotations

from ..backbones import Backbone
from ..config import Sides, sides_of
from ..errors import ConfigError
from .codec import Codec


def image_size(codec: Codec, backbone: Backbone) -> int | str:
    """Size in pixels of the images that ``backbone`` makes through ``codec``, as records keep it: 512, or 832x1216."""
    height, width = backbone.sample_shape[1:]
    return Sides(height * codec.factor, width * codec.factor).written


def set_image_size(wanted: int | str | None, backbone: Backbone, codec: Codec) -> None:
    """Make the backbone draw images of ``wanted`` pixels; ConfigError when it cannot."""
    if wanted is None:
        return
    sides = sides_of(wanted)
    if backbone.any_size:
        _check_sides(sides, backbone, codec)
        backbone.resize(sides.height // codec.factor, sides.width // codec.factor)
    actual = image_size(codec, backbone)
    if sides.written != actual:
        only = " and square ones only" if sides.height != sides.width else ""
        raise ConfigError(f"--image-size {wanted}: this backbone and codec make images of {actual} pixels{only}")


def _check_sides(sides: Sides, backbone: Backbone, codec: Codec) -> None:
    """Raise ConfigError for a size that the codec or the backbone cannot divide, or that it has no positions for."""
    multiple, most = codec.factor * backbone.side_multiple, backbone.largest_side
    if any(side % multiple for side in sides):
        below, above = (Sides(*(_rounded(side, multiple, up=up) for side in sides)) for up in (False, True))
        near = [str(size.written) for size in (above, below) if min(size) > 0]
        near = near[::-1] if _distance(below, sides) < _distance(above, sides) else near
        fitting = f"the nearest that fit are {' and '.join(near)}" if len(near) > 1 else f"the least is {near[0]}"
        raise ConfigError(
            f"--image-size {sides.written}: the codec and the backbone need a multiple of {multiple} pixels; {fitting}"
        )
    if most is not None and max(sides) > most * codec.factor:
        raise ConfigError(
            f"--image-size {sides.written}: this backbone has positions for {most * codec.factor} pixels and no more"
        )


def _rounded(side: int, multiple: int, *, up: bool) -> int:
    """The nearest multiple that is not below, or not above, ``side``."""
    return (-(-side // multiple) if up else side // multiple) * multiple


def _distance(one: Sides, other: Sides) -> int:
    return abs(one.height - other.height) + abs(one.width - other.width)
