"""Buckets: groups of images that are shown at one size, so that little of each is cut off. A batch holds one bucket.

n images; a bucket has a size, and the images whose shapes come nearest to it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..config import MAX_PIXELS, Sides
from ..errors import DataError
from .decoding import read_sides
from .framing import Cut, Frame, find_frame
from .source import ImageSource

_READERS = 8  # threads that read the headers of files


class BucketRule(NamedTuple):
    """Which sizes there are. All in pixels."""

    size: Sides  # whose area no bucket exceeds
    step: int  # sides are multiples of it
    least: int  # shortest side
    most: int  # longest side
    upscale: bool = True  # whether an image that is smaller than its bucket is enlarged; else it gets a smaller bucket

    def sizes(self) -> list[Sides]:
        """The sizes of all buckets but those of images that are too small, wide ones first."""
        area, step = self.size.height * self.size.width, self.step
        found = {Sides(max(step, math.isqrt(area) // step * step), max(step, math.isqrt(area) // step * step))}
        for one in range(-(-self.least // step) * step, self.most + 1, step):
            other = min(self.most, area // one) // step * step
            if one and other >= max(self.least, step):
                found |= {Sides(one, other), Sides(other, one)}
        return sorted(found, key=lambda sides: (sides.height / sides.width, -sides.width))

    def size_for(self, picture: Sides, sizes: list[Sides]) -> Sides:
        """The size of the nearest shape: the least ratio of the two ratios of height and width; of several the largest.

        Without ``upscale`` no side is longer than the picture's, but for one that is shorter than a step.
        """

        def how_far(sides: Sides) -> tuple[float, int]:
            off = abs(math.log(sides.height / sides.width) - math.log(picture.height / picture.width))
            return round(off, 9), -sides.height * sides.width

        nearest = min(sizes, key=how_far)
        if self.upscale or (nearest.height <= picture.height and nearest.width <= picture.width):
            return nearest
        own = [max(self.step, side // self.step * self.step) for side in picture]
        return Sides(min(nearest.height, own[0]), min(nearest.width, own[1]))


@dataclass(frozen=True)
class Buckets:
    """The images of a data set in buckets."""

    sizes: tuple[Sides, ...]  # of each bucket
    bucket: np.ndarray  # of each image, (n,)
    pictures: np.ndarray  # height and width of each image's picture, (n, 2); of an unreadable one its bucket's

    @cached_property
    def members(self) -> list[np.ndarray]:
        """The images of each bucket, rising."""
        return [np.flatnonzero(self.bucket == number) for number in range(len(self.sizes))]

    @cached_property
    def rank(self) -> np.ndarray:
        """The place of each image among those of its bucket, (n,)."""
        found = np.empty(len(self.bucket), np.int64)
        for members in self.members:
            found[members] = np.arange(len(members))
        return found

    def follow(self, index: int, count: int) -> int:
        """The image ``count`` places after ``index`` in the same bucket, from whose end it goes on at its beginning."""
        members = self.members[self.bucket[index]]
        return int(members[(self.rank[index] + count) % len(members)])

    def frame(self, index: int, *, mirrored: bool, cut: Cut | None = None) -> Frame:
        """How an image was cut. A mirrored one was cut from the mirrored picture."""
        picture = Sides(*map(int, self.pictures[index]))
        return find_frame(picture, self.sizes[self.bucket[index]], mirrored=mirrored, cut=cut)

    def digest(self, number: int) -> str:
        """SHA-256 over the numbers of the images of a bucket, as hex."""
        return hashlib.sha256(self.members[number].astype("<i8").tobytes()).hexdigest()

    def counts(self) -> dict[str, int]:
        """How many images each bucket has, by its size in words."""
        return {sides.in_words: len(own) for sides, own in zip(self.sizes, self.members, strict=True)}


def find_pictures(images: ImageSource, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Height and width of each picture, (n, 2); zeros for one that cannot be read. Every file is read once."""

    def look(index: int) -> tuple[int, int]:
        try:
            return read_sides(images.read(index), name=images.name(index), max_pixels=max_pixels)
        except DataError:
            return 0, 0

    with ThreadPoolExecutor(_READERS) as readers:
        return np.array(list(readers.map(look, range(len(images)))), np.int64).reshape(-1, 2)


def fill_buckets(pictures: np.ndarray, rule: BucketRule, *, batch_size: int) -> tuple[Buckets, list[str]]:
    """Put pictures (n, 2) into buckets; and sentences on buckets that were given up.

    A bucket with fewer images than a batch is given up: its images go to the bucket of the nearest size. Images that
    cannot be read go to the largest bucket.
    """
    known, sizes = pictures.min(axis=1) > 0, rule.sizes()
    groups: dict[Sides, list[int]] = {}
    for index in np.flatnonzero(known).tolist():
        groups.setdefault(rule.size_for(Sides(*map(int, pictures[index])), sizes), []).append(index)
    if not groups:
        groups = {min(sizes, key=lambda sides: abs(sides.height - sides.width)): []}
    remarks = list(_merge(groups, batch_size))
    largest = max(groups, key=lambda sides: len(groups[sides]))
    groups[largest] += np.flatnonzero(~known).tolist()
    named = tuple(sorted(groups, key=lambda sides: (sides.height / sides.width, -sides.width)))
    bucket, shown = np.zeros(len(pictures), np.int64), pictures.copy()
    for number, sides in enumerate(named):
        bucket[groups[sides]] = number
    shown[~known] = largest
    return Buckets(named, bucket, shown), remarks


def _merge(groups: dict[Sides, list[int]], batch_size: int) -> Iterator[str]:
    """Give up buckets with too few images, the smallest first. Yields a sentence on each."""
    while len(groups) > 1:
        small = min(groups, key=lambda sides: (len(groups[sides]), sides))
        if len(groups[small]) >= batch_size:
            return

        def how_far(sides: Sides, small: Sides = small) -> tuple[float, Sides]:
            return sum(abs(math.log(a / b)) for a, b in zip(sides, small, strict=True)), sides

        near = min((sides for sides in groups if sides != small), key=how_far)
        count = len(groups[small])
        groups[near] += groups.pop(small)
        yield f"{count} image{'' if count == 1 else 's'} of {small.in_words} to {near.in_words}"
