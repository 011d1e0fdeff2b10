"""A set of names of images and latents that takes a byte for each: a set of strings takes more than a hundred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..config import MAX_IMAGES
from ..data import IMAGE, LATENT, image_name, index_of

_ENDS = (IMAGE, LATENT)


class ImageNames:
    """Names of files of samples. Those that are numbered are kept as marks by index, all others as they are."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._marks = {end: bytearray() for end in _ENDS}
        self._others: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Put in one name."""
        place = _place_of(name)
        if place is None:
            self._others.add(name)
            return
        end, index = place
        marks = self._marks[end]
        if index >= len(marks):
            marks.extend(bytes(max(index + 1 - len(marks), len(marks) // 2)))
        marks[index] = 1

    def has(self, index: int, end: str = IMAGE) -> bool:
        """Whether the image of this index, or its latent, is among them."""
        marks = self._marks[end]
        return marks[index] > 0 if index < len(marks) else image_name(index, end) in self._others

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, str)
        place = _place_of(name)
        return name in self._others if place is None else self.has(place[1], place[0])

    def __iter__(self) -> Iterator[str]:
        """The names: all numbered images, then all latents, each by index, then the others in no order."""
        for end, marks in self._marks.items():
            index = marks.find(1)
            while index >= 0:
                yield image_name(index, end)
                index = marks.find(1, index + 1)
        yield from self._others

    def __len__(self) -> int:
        return sum(marks.count(1) for marks in self._marks.values()) + len(self._others)


def _place_of(name: str) -> tuple[str, int] | None:
    """Suffix and index of a name that gets a mark; None: it is no sample's, or has a number that no sample has."""
    index = index_of(name)
    if index is None or index >= MAX_IMAGES:
        return None
    return (LATENT if name.endswith(LATENT) else IMAGE), index
