"""Measures a folder or zip of images: from files to statistics. Threads decode images while the network runs.

Letters: n images, d features, B images in a batch.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image

from ..config import MAX_PIXELS
from ..data import BOUNDS, Bounds, ImageSource, as_floats, center_crop, decode, to_uint8
from ..errors import DataError, MetricError
from ..latents import Codec
from ..runtime import Advance, tracking
from .distances import fit_gaussian
from .features import Extractor
from .samples import find_samples
from .statistics import Provenance, Statistics

_THREADS = min(8, os.cpu_count() or 1)  # for decoding and resizing while the network runs
_SHOWN = 3  # unreadable images that a message names

Log = Callable[[str], None]
T = TypeVar("T")
R = TypeVar("R")


def silent(message: str) -> None:
    """A log that writes nothing."""


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


def measure(
    path: Path,
    extractor: Extractor,
    *,
    batch_size: int,
    changes: Preprocessing | None = None,
    part: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    bounds: Bounds = BOUNDS,
    log: Log = silent,
) -> Statistics:
    """Compute the statistics of all samples of a folder or .zip, in sorted order, in batches of ``batch_size``.

    ``part`` (k, n) takes image k, counted from 0, and every n-th after it, of all images sorted by class, so that each
    part has its share of every class.

    Images of more than ``max_pixels``, or beyond ``bounds``, cannot be read. ``log`` gets progress, and what Pillow
    warned of.

    Raises:
        DataError: the folder or .zip holds no images.
        MetricError: it holds only one, an image cannot be read (a score over fewer images would not be comparable), or
            the images do not fit the extractor.
    """
    (source, indices), changes = find_samples(path, bounds=bounds), changes or Preprocessing()
    indices = _take(source, indices, part)
    images = _Images(source, indices, max_pixels, log)
    try:
        with tracking(f"measure {Path(path).name}", len(indices)) as advance:
            found = _embed_batches(images, extractor, changes, batch_size=batch_size, advance=advance)
            batches, sizes, jpegs = zip(*found, strict=True)
    except DataError as error:
        raise _unreadable(images, error) from error
    except MetricError as error:
        raise MetricError(f"{path}: {error.message}", hint=error.hint) from error
    features = np.concatenate(batches)  # (n, d)
    provenance = Provenance(
        features=extractor.name,
        digest=extractor.digest,
        count=len(features),
        source=Path(path).name,
        fingerprint=source.fingerprint,
        image_sizes=tuple(sorted(set().union(*sizes))),
        resize=extractor.resize,
        crop=changes.crop,
        codec=changes.codec and changes.codec.record.digest,
        jpegs=sum(jpegs),
        part=part,
    )
    return Statistics(fit_gaussian(features), features, provenance)


def _take(source: ImageSource, indices: list[int], part: tuple[int, int] | None) -> list[int]:
    """The images of one part. Raises MetricError where a score could not be computed of it."""
    if part is None:
        return indices
    # Shards may hold their classes in turn: then every second image alone would be of every second class.
    taken = sorted(sorted(indices, key=source.labels.__getitem__)[part[0] :: part[1]])
    if len(taken) < 2:
        raise MetricError(
            f"{source.path}: part {part[0] + 1} of {part[1]} holds {len(taken)} images, and a score needs two"
        )
    return taken


class _Images(NamedTuple):
    """Which images of a source are measured, and how they are decoded."""

    source: ImageSource
    indices: list[int]
    max_pixels: int
    log: Log

    def decode(self, index: int) -> tuple[Image.Image, bool]:
        """The image, and whether its file is a JPEG."""
        remarks: list[str] = []
        data, name = self.source.read(index), self.source.name(index)
        image = decode(data, channels=3, name=name, max_pixels=self.max_pixels, remarks=remarks)
        for remark in remarks:
            self.log(f"warning: {remark}")
        return image, data[:2] == b"\xff\xd8"


@dataclass(frozen=True)
class _Prepared:
    """One image, decoded and ready for the network."""

    name: str
    size: tuple[int, int]  # width, height in pixels
    array: np.ndarray  # the network's input; before a codec, pixels
    is_jpeg: bool


def _embed_batches(
    images: _Images, extractor: Extractor, changes: Preprocessing, *, batch_size: int, advance: Advance
) -> Iterator[tuple[np.ndarray, set[tuple[int, int]], int]]:
    """Yield the features (B, d), the image sizes and the number of JPEG files of one batch after the other."""

    def prepare(index: int) -> _Prepared:
        image, is_jpeg = images.decode(index)
        pixels = np.asarray(changes.cut(image))
        array, size = pixels if changes.codec else extractor.prepare(pixels), (pixels.shape[1], pixels.shape[0])
        return _Prepared(images.source.name(index), size, array, is_jpeg)

    batch: list[_Prepared] = []
    first: _Prepared | None = None
    count = len(images.indices)
    for done, prepared in enumerate(_map_ahead(prepare, images.indices, window=2 * batch_size + _THREADS), start=1):
        first = first or prepared
        if extractor.width is None and prepared.size != first.size:
            raise _size_mismatch(extractor, first, prepared)
        batch.append(prepared)
        if len(batch) == batch_size or done == count:
            arrays = [one.array for one in batch]
            if changes.codec:
                decoded = (changes.reconstruct(changes.codec, image, extractor.device) for image in arrays)
                arrays = [extractor.prepare(image) for image in decoded]
            yield extractor.embed(arrays), {one.size for one in batch}, sum(one.is_jpeg for one in batch)
            batch = []
            advance(done, "")


def _size_mismatch(extractor: Extractor, first: _Prepared, other: _Prepared) -> MetricError:
    sizes = [f"{one.name} is {one.size[0]}x{one.size[1]}" for one in (first, other)]
    return MetricError(
        f"features {extractor.name} need images of one size: {sizes[0]} pixels, but {sizes[1]}",
        hint="Resize the images, or use --features inception, which resizes them itself.",
    )


def _map_ahead(function: Callable[[T], R], items: Iterable[T], *, window: int) -> Iterator[R]:
    """Yield results in order. Threads compute up to ``window`` of them ahead; all at once would fill the memory."""
    with ThreadPoolExecutor(_THREADS) as pool:
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


def _unreadable(images: _Images, error: DataError) -> MetricError:
    """Build one error that says how many of all images cannot be read."""

    def problem(index: int) -> str | None:
        try:
            images._replace(log=silent).decode(index)
        except DataError as found:
            return found.message
        return None

    bad = [found for found in _map_ahead(problem, images.indices, window=4 * _THREADS) if found] or [error.message]
    count, first = len(images.indices), "; ".join(bad[:_SHOWN])
    return MetricError(
        f"{images.source.path}: {len(bad)} of {count} images cannot be read; the first: {first}",
        hint="Repair or remove them. They are not skipped, as a score over fewer images does not compare with others.",
    )
