"""Measures a folder or zip of images: from files to statistics. Threads decode images while the network runs.

Letters: n images, d features, B images in a batch.
"""

from __future__ import annotations

import os
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from ..data import ImageSource, ShardImages, as_floats, center_crop, decode, find_images, to_uint8
from ..errors import DataError, MetricError
from ..latents import Codec
from ..sampling import tars_in
from .distances import fit_gaussian
from .features import Extractor
from .statistics import Provenance, Statistics

_THREADS = min(8, os.cpu_count() or 1)  # for decoding and resizing while the network runs
_LOG_EVERY = 5000  # images between two log lines
_SHOWN = 3  # unreadable images that a message names

Log = Callable[[str], None]
T = TypeVar("T")
R = TypeVar("R")


def silent(message: str) -> None:
    """A log that writes nothing."""


@dataclass(frozen=True)
class Preprocessing:
    """Changes applied to the images of a reference before they are measured, so that it matches the samples."""

    crop: int | None = None  # side of the central square in pixels; None: no crop
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
    path: Path, extractor: Extractor, *, batch_size: int, changes: Preprocessing | None = None, log: Log = silent
) -> Statistics:
    """Compute the statistics of all samples of a folder or .zip, in sorted order, in batches of ``batch_size``.

    Raises:
        DataError: the folder or .zip holds no images.
        MetricError: it holds only one, an image cannot be read (a score over fewer images would not be comparable), or
            the images do not fit the extractor.
    """
    (source, indices), changes = find_samples(path), changes or Preprocessing()
    try:
        batches, sizes = zip(
            *_embed_batches(source, indices, extractor, changes, batch_size=batch_size, log=log), strict=True
        )
    except DataError as error:
        raise _unreadable(source, indices, error) from error
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
    )
    return Statistics(fit_gaussian(features), features, provenance)


def find_samples(path: Path) -> tuple[ImageSource, list[int]]:
    """Find the images of a folder or .zip, and the indices of those that are samples.

    The preview ``grid.png`` that ``dmp sample`` writes beside ``samples.json`` is not a sample.

    Raises:
        DataError: there are no images.
        MetricError: there are fewer than two samples, or some are not in their tar yet.
    """
    source: ImageSource
    if path.is_dir() and (tars := tars_in(path)):
        if loose := sum(inner.stem.isdigit() and inner.suffix == ".png" for inner in path.iterdir()):
            raise MetricError(
                f"{path}: {loose} images are not in a tar yet",
                hint="Run the dmp sample command of this folder again until it ends.",
            )
        source = ShardImages(path, tars)
    else:
        source = find_images(path)
    grid = f"{source.path}/grid.png" if read_beside(source.path, "samples.json") is not None else None
    indices = [index for index in range(len(source)) if source.name(index) != grid]
    if len(indices) < 2:
        raise MetricError(f"{path}: a score needs at least two images, and there are {len(indices)}")
    return source, indices


def read_beside(path: Path, name: str) -> bytes | None:
    """Read the file ``name`` at the top of a folder or zip. None: there is no such file."""
    if path.is_dir():
        return (path / name).read_bytes() if (path / name).is_file() else None
    with zipfile.ZipFile(path) as archive:
        return archive.read(name) if name in archive.namelist() else None


@dataclass(frozen=True)
class _Prepared:
    """One image, decoded and ready for the network."""

    name: str
    size: tuple[int, int]  # width, height in pixels
    array: np.ndarray  # the network's input; before a codec, pixels


def _embed_batches(
    source: ImageSource, indices: list[int], extractor: Extractor, changes: Preprocessing, *, batch_size: int, log: Log
) -> Iterator[tuple[np.ndarray, set[tuple[int, int]]]]:
    """Yield the features (B, d) and the image sizes of one batch after the other."""

    def prepare(index: int) -> _Prepared:
        name = source.name(index)
        image = changes.cut(decode(source.read(index), channels=3, name=name))
        pixels = np.asarray(image)
        return _Prepared(name, image.size, pixels if changes.codec else extractor.prepare(pixels))

    batch: list[_Prepared] = []
    first: _Prepared | None = None
    for done, prepared in enumerate(_map_ahead(prepare, indices, window=2 * batch_size + _THREADS), start=1):
        first = first or prepared
        if extractor.width is None and prepared.size != first.size:
            raise _size_mismatch(extractor, first, prepared)
        batch.append(prepared)
        if len(batch) == batch_size or done == len(indices):
            arrays = [one.array for one in batch]
            if changes.codec:
                decoded = (changes.reconstruct(changes.codec, image, extractor.device) for image in arrays)
                arrays = [extractor.prepare(image) for image in decoded]
            yield extractor.embed(arrays), {one.size for one in batch}
            batch = []
        if done % _LOG_EVERY == 0:
            log(f"{source.path}: {done:,} of {len(indices):,} images")


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


def _unreadable(source: ImageSource, indices: list[int], error: DataError) -> MetricError:
    """Build one error that says how many of all images cannot be read."""

    def problem(index: int) -> str | None:
        try:
            decode(source.read(index), channels=3, name=source.name(index))
        except DataError as found:
            return found.message
        return None

    bad = [found for found in _map_ahead(problem, indices, window=4 * _THREADS) if found] or [error.message]
    return MetricError(
        f"{source.path}: {len(bad)} of {len(indices)} images cannot be read; the first: {'; '.join(bad[:_SHOWN])}",
        hint="Repair or remove them. They are not skipped, as a score over fewer images does not compare with others.",
    )
