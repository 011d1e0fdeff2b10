"""From image files to features, batch after batch. Threads decode images while the network runs.

Letters: d features, B images in a batch.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image

from ..data import ImageSource, as_floats, center_crop, decode, to_uint8
from ..errors import DataError, MetricError
from ..latents import Codec
from .features import Extractor

_THREADS = min(8, os.cpu_count() or 1)  # for decoding and resizing while the network runs
_LANES = 16  # batches that are computed at once on a CPU; each has its own memory
_SHOWN = 3  # unreadable images that a message names

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Preprocessing:
    """Changes applied to the images of a reference before they are measured, so that it matches the samples."""

    crop: int | str | None = None  # size in pixels of the centres; None: no crop
    codec: Codec | None = None  # encodes and decodes each image, with the mean of the posterior; None: no codec

    def cut(self, image: Image.Image) -> Image.Image:
        """Crop the central square of an image, as training does."""
        return image if self.crop is None else center_crop(image, image_size=self.crop)

    @staticmethod
    def reconstruct(codec: Codec, image: np.ndarray, device: str) -> np.ndarray:
        """Encode and decode an image, uint8 (H, W, 3). Raises MetricError for a size that the codec cannot take."""
        height, width = image.shape[:2]
        if height % codec.factor or width % codec.factor:
            raise MetricError(f"an image is {width}x{height} pixels, but the VAE takes multiples of {codec.factor}")
        pixels = as_floats(torch.tensor(image, device=device).permute(2, 0, 1)[None])
        measured = codec.measure(pixels)
        noise = torch.zeros_like(measured.chunk(2, dim=1)[0]) if codec.has_posterior else None
        return to_uint8(codec.decode(codec.draw(measured, noise=noise)))[0]


class Images(NamedTuple):
    """Which images of a source are measured, and how they are decoded."""

    source: ImageSource
    indices: np.ndarray  # (n,) int64
    max_pixels: int

    def decode(self, index: int) -> tuple[Image.Image, bool, list[str]]:
        """The image, whether its file is a JPEG, and what Pillow warned of."""
        remarks: list[str] = []
        data, name = self.source.read(index), self.source.name(index)
        image = decode(data, channels=3, name=name, max_pixels=self.max_pixels, remarks=remarks)
        return image, data[:2] == b"\xff\xd8", remarks


class Embedded(NamedTuple):
    """Features of consecutive images, and what their files are."""

    rows: np.ndarray  # (n, d) float32
    sizes: frozenset[tuple[int, int]]  # distinct (width, height) in pixels, after cropping
    jpegs: int  # how many of the files are JPEGs
    remarks: tuple[str, ...] = ()  # what Pillow warned of


def join(parts: Sequence[Embedded]) -> Embedded:
    """Several parts as one, in their order."""
    rows = np.concatenate([part.rows for part in parts])
    sizes = frozenset[tuple[int, int]]().union(*(part.sizes for part in parts))
    return Embedded(rows, sizes, sum(part.jpegs for part in parts), tuple(r for part in parts for r in part.remarks))


@dataclass(frozen=True)
class _Prepared:
    """One image, decoded and ready for the network."""

    name: str
    size: tuple[int, int]  # width, height in pixels
    array: np.ndarray  # the network's input; before a codec, pixels
    is_jpeg: bool
    remarks: list[str]


def embed_batches(
    images: Images, extractor: Extractor, changes: Preprocessing, *, todo: np.ndarray, batch_size: int
) -> Iterator[Embedded]:
    """Yield one batch after the other of the images ``todo`` (k,), some of those of ``images``.

    Raises:
        DataError: an image cannot be read.
        MetricError: the images do not fit the extractor, or are not of one size where that fixes the features.
    """

    def prepare(index: int) -> _Prepared:
        image, is_jpeg, remarks = images.decode(index)
        pixels = np.asarray(changes.cut(image))
        array, size = pixels if changes.codec else extractor.prepare(pixels), (pixels.shape[1], pixels.shape[0])
        return _Prepared(images.source.name(index), size, array, is_jpeg, remarks)

    def batches() -> Iterator[list[_Prepared]]:
        # Of all images, not of todo: each of several processes compares its part with the same one.
        first = prepare(int(images.indices[0])) if extractor.width is None else None
        batch: list[_Prepared] = []
        ahead = _map_ahead(prepare, map(int, todo), window=2 * batch_size + _THREADS)
        for done, prepared in enumerate(ahead, start=1):
            if first is not None and prepared.size != first.size:
                raise _size_mismatch(extractor, first, prepared)
            batch.append(prepared)
            if len(batch) == batch_size or done == len(todo):
                yield batch
                batch = []

    def embed(batch: list[_Prepared]) -> Embedded:
        arrays = [one.array for one in batch]
        if changes.codec:
            decoded = (changes.reconstruct(changes.codec, image, extractor.device) for image in arrays)
            arrays = [extractor.prepare(image) for image in decoded]
        sizes, remarks = frozenset(one.size for one in batch), tuple(r for one in batch for r in one.remarks)
        return Embedded(extractor.embed(arrays), sizes, sum(one.is_jpeg for one in batch), remarks)

    yield from map(embed, batches()) if extractor.device != "cpu" else _in_lanes(embed, batches())


def _in_lanes(embed: Callable[[list[_Prepared]], Embedded], batches: Iterator[list[_Prepared]]) -> Iterator[Embedded]:
    """``embed`` of each batch, in order, on the cores that torch may use: one core for each of several batches.

    Several cores for one batch would add up numbers in an order that depends on how many cores there are, and so on how
    many processes share a machine.
    """
    threads = torch.get_num_threads()
    lanes = min(threads, _LANES)
    try:
        torch.set_num_threads(1)  # of this thread, and of those below in their turn
        if lanes == 1:
            yield from map(embed, batches)
        else:
            yield from _map_ahead(embed, batches, window=lanes, lanes=lanes)
    finally:
        torch.set_num_threads(threads)


def _size_mismatch(extractor: Extractor, first: _Prepared, other: _Prepared) -> MetricError:
    sizes = [f"{one.name} is {one.size[0]}x{one.size[1]}" for one in (first, other)]
    return MetricError(
        f"features {extractor.name} need images of one size: {sizes[0]} pixels, but {sizes[1]}",
        hint="Resize the images, or use --features inception, which resizes them itself.",
    )


def _map_ahead(function: Callable[[T], R], items: Iterable[T], *, window: int, lanes: int = 0) -> Iterator[R]:
    """Yield results in order. Threads compute up to ``window`` of them ahead; all at once would fill the memory.

    ``lanes``: so many threads, each of which computes with torch on one core; 0: threads that do not.
    """
    start: dict[str, Any] = {"initializer": torch.set_num_threads, "initargs": (1,)} if lanes else {}
    with ThreadPoolExecutor(lanes or _THREADS, **start) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= window:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def unreadable(images: Images, error: DataError) -> MetricError:
    """Build one error that says how many of all images cannot be read."""

    def problem(index: int) -> str | None:
        try:
            images.decode(index)
        except DataError as found:
            return found.message
        return None

    bad = [found for found in _map_ahead(problem, map(int, images.indices), window=4 * _THREADS) if found] or [
        error.message
    ]
    count, first = len(images.indices), "; ".join(bad[:_SHOWN])
    return MetricError(
        f"{images.source.path}: {len(bad)} of {count} images cannot be read; the first: {first}",
        hint="Repair or remove them. They are not skipped, as a score over fewer images does not compare with others.",
    )
