"""Sizes of images as people write them: a side, such as 512, or width x height, such as 832x1216.

A size that is kept in a record is what was written: a whole number for a square, else the two sides as one word.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from .base import refuse

_LARGEST = 1 << 20  # pixels of a side
_ONE = re.compile(r"[1-9][0-9]{0,7}")
_TWO = re.compile(r"([1-9][0-9]{0,7})[x×]([1-9][0-9]{0,7})")


class Sides(NamedTuple):
    """The two sides of an image or of a grid, in the order of a tensor's dimensions."""

    height: int
    width: int

    @property
    def in_words(self) -> str:
        """Width x height, a square's too."""
        return f"{self.width}x{self.height}"

    def over(self, factor: int) -> Sides:
        """Both sides, divided by ``factor``."""
        return Sides(self.height // factor, self.width // factor)

    @property
    def written(self) -> int | str:
        """As a record keeps it: the side of a square, else width x height."""
        return self.height if self.height == self.width else self.in_words


def sides_of(size: int | str) -> Sides:
    """Height and width of a size as it is written."""
    if isinstance(size, int):
        return Sides(size, size)
    found = _TWO.fullmatch(size)
    assert found is not None, size
    return Sides(int(found[2]), int(found[1]))


def read_size(value: Any, *, option: str = "--image-size", other: str = "") -> Any:
    """The size as records keep it. Raises an error of pydantic for anything else, which names ``option``."""
    problem = f"{option} {value!s:.40}: give pixels: a side such as 512, or width x height such as 832x1216{other}"
    if isinstance(value, str) and _ONE.fullmatch(value):
        value = int(value)
    elif isinstance(value, str) and (found := _TWO.fullmatch(value.lower())):
        value = Sides(int(found[2]), int(found[1])).written
    elif isinstance(value, bool) or not isinstance(value, int):
        raise refuse(problem)
    if not all(1 <= side <= _LARGEST for side in sides_of(value)):
        raise refuse(problem)
    return value


def as_number(text: Any) -> Any:
    """What was typed as a size: a whole number where it is one, as a file of options has it too."""
    return int(text) if isinstance(text, str) and _ONE.fullmatch(text) else text


ImageSize = Annotated[int | str, BeforeValidator(read_size)]
