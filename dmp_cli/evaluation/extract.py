"""Measuring a folder or zip of images: files to statistics, decoded in threads beside the network.

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

_THREADS = min(8, os.cpu_count() or 1)  # decoding and resizing, beside the network
_LOG_EVERY = 5000  # images
_SHOWN = 3  # unreadable images named in a message

Log = Callable[[str], None]
T = TypeVar("T")
R = TypeVar("R")


def silent(message: str) -> None:
    """The log of who does not want one."""


@dataclass(frozen=True)
class View:
    """How images are changed before they are measured, as a reference is to be like the samples."""

    crop: int | None = None  # pixels of the central square; None: not cut
    codec: Codec | None = None  # encode and decode again, with the posterior's mean

    def cut(self, image: Image.Image) -> Image.Image:
        """Its central square, as training cuts it."""
        return image if self.crop is None else center_crop(image, image_size=self.crop)

    @staticmethod
    def through(codec: Codec, image: np.ndarray, device: str) -> np.ndarray:
        """A uint8 (H, W, 3) image as the codec gives it back. Raises MetricError for a size that it cannot take."""
        height, width = image.shape[:2]
        if height % codec.factor or width % codec.factor:
            raise MetricError(f"an image of {width}x{height} pixels: the VAE takes multiples of {codec.factor}")
        pixels = as_floats(torch.tensor(image, device=device).permute(2, 0, 1)[None])
        measured = codec.measure(pixels)
        noise = torch.zeros_like(measured.chunk(2, dim=1)[0]) if codec.has_posterior else None
        return to_uint8(codec.decode(codec.draw(measured, noise=noise)))[0]


def measure(
    path: Path, extractor: Extractor, *, batch_size: int, view: View | None = None, log: Log = silent
) -> Statistics:
    """The statistics of all samples of a folder or .zip, in sorted order, in batches of ``batch_size``.

    Raises what :func:`find_samples` does, and MetricError when any image cannot be read, as scores over a smaller set
    would not be comparable, and when the images do not fit the extractor.
    """
    (source, indices), view = find_samples(path), view or View()
    try:
        measured = _batches(source, indices, extractor, view, batch_size=batch_size, log=log)
        batches, sizes = zip(*measured, strict=True)
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
        crop=view.crop,
        codec=view.codec and view.codec.record.digest,
    )
    return Statistics(fit_gaussian(features), features, provenance)


def find_samples(path: Path) -> tuple[ImageSource, list[int]]:
    """The images of a folder or .zip, and the indices of those that are samples.

    The preview ``grid.png`` that ``dmp sample`` writes next to ``samples.json`` is none. Raises DataError when there
    are no images, MetricError when there is only one.
    """
    source: ImageSource
    if path.is_dir() and (tars := tars_in(path)):
        if beside := sum(inner.stem.isdigit() and inner.suffix == ".png" for inner in path.iterdir()):
            raise MetricError(f"{path}: {beside} images are in no tar yet", hint="Run its dmp sample again to the end.")
        source = ShardImages(path, tars)
    else:
        source = find_images(path)
    grid = f"{source.path}/grid.png" if read_beside(source.path, "samples.json") is not None else None
    indices = [index for index in range(len(source)) if source.name(index) != grid]
    if len(indices) < 2:
        raise MetricError(f"{path}: a score needs two images at least, and there is {len(indices)}")
    return source, indices


def read_beside(path: Path, name: str) -> bytes | None:
    """The file ``name`` directly in a folder or zip; None: there is none."""
    if path.is_dir():
        return (path / name).read_bytes() if (path / name).is_file() else None
    with zipfile.ZipFile(path) as archive:
        return archive.read(name) if name in archive.namelist() else None


@dataclass(frozen=True)
class _Prepared:
    name: str
    size: tuple[int, int]  # width, height in pixels
    array: np.ndarray  # the network's input; with a codec before it, pixels


def _batches(
    source: ImageSource, indices: list[int], extractor: Extractor, view: View, *, batch_size: int, log: Log
) -> Iterator[tuple[np.ndarray, set[tuple[int, int]]]]:
    """Per batch the features (B, d) and the sizes of the images."""

    def prepare(index: int) -> _Prepared:
        name = source.name(index)
        image = view.cut(decode(source.read(index), channels=3, name=name))
        pixels = np.asarray(image)
        return _Prepared(name, image.size, pixels if view.codec else extractor.prepare(pixels))

    batch: list[_Prepared] = []
    first: _Prepared | None = None
    for done, prepared in enumerate(_ahead(prepare, indices, window=2 * batch_size + _THREADS), start=1):
        first = first or prepared
        if extractor.width is None and prepared.size != first.size:
            raise _of_two_sizes(extractor, first, prepared)
        batch.append(prepared)
        if len(batch) == batch_size or done == len(indices):
            arrays = [one.array for one in batch]
            if view.codec:
                decoded = (view.through(view.codec, image, extractor.device) for image in arrays)
                arrays = [extractor.prepare(image) for image in decoded]
            yield extractor.embed(arrays), {one.size for one in batch}
            batch = []
        if done % _LOG_EVERY == 0:
            log(f"{source.path}: {done:,} of {len(indices):,} images")


def _of_two_sizes(extractor: Extractor, first: _Prepared, other: _Prepared) -> MetricError:
    sizes = [f"{one.name} is {one.size[0]}x{one.size[1]}" for one in (first, other)]
    return MetricError(
        f"features {extractor.name} need images of one size: {sizes[0]} pixels, {sizes[1]}",
        hint="Resize the images, or use --features inception, which resizes them itself.",
    )


def _ahead(function: Callable[[T], R], items: Iterable[T], *, window: int) -> Iterator[R]:
    """Results in order, computed in threads up to ``window`` items ahead: all at once would fill the memory."""
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
    """Look through all images, so that one message tells how many are bad."""

    def problem(index: int) -> str | None:
        try:
            decode(source.read(index), channels=3, name=source.name(index))
        except DataError as found:
            return found.message
        return None

    bad = [found for found in _ahead(problem, indices, window=4 * _THREADS) if found] or [error.message]
    return MetricError(
        f"{source.path}: {len(bad)} of {len(indices)} images cannot be read, the first: {'; '.join(bad[:_SHOWN])}",
        hint="Mend or remove them: a score over fewer images is not comparable with the others.",
    )
