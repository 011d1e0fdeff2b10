"""Images (and their class) -> batches for training. The data of a step is a pure function of (seed, step).

B images a batch, C channels, H = W = image size in pixels, n images in the data set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from ..runtime import randomness
from .decoding import center_crop, decode
from .shuffling import Order, Place
from .source import ImageSource
from .workers import load

_SHOWN = 3  # bad files named in an error
KEPT_BYTES = 1 << 28  # decoded images that one process may keep


@dataclass(frozen=True)
class Batch:
    """One step's images. Row k of ``values`` is of the image ``indices[k]`` of the source, of class ``labels[k]``."""

    step: int
    values: Tensor  # (B, C, H, W): uint8 pixels, or what a codec made of them, float32
    labels: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64
    bad: list[str]  # a message for each unreadable file met for the first time
    captions: list[str] | None = None  # one an image, where they were asked for


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return pixels.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> np.ndarray:
    """[-1, 1] floats (B, C, H, W) -> uint8 (B, H, W, C): clipped, rounded to the nearest level."""
    levels = (images.float().clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True)
class Sample:
    """One image, or the lack of one, as it travels from a worker: problems are values, so that no traceback does."""

    index: int
    values: np.ndarray | None  # (C, H, W); None: nothing readable among the images tried
    problems: list[tuple[int, str]]  # (index, message) of the unreadable files met on the way
    caption: str | None = None  # None: not asked for
    fault: str | None = None  # what makes going on impossible


@dataclass(frozen=True)
class _Samples:
    values: Tensor | None  # (B, C, H, W); of pixels uint8: a quarter of the shared memory that float32 would take
    indices: list[int]
    captions: list[str]  # empty where they were not asked for
    problems: list[tuple[int, str]]
    faults: list[str]


class Damaged(Exception):
    """What a reader raises when its own files, not the user's images, are damaged."""


class Reader(Protocol):
    """Where the values of an image come from."""

    def read(self, index: int, *, mirrored: bool) -> np.ndarray:
        """(C, H, W) of image ``index``. DataError: that image is unreadable; Damaged: the reader's files are."""


class LiveReader:
    """Reads, decodes and crops image files whenever they are asked for; (C, H, W) uint8."""

    def __init__(self, images: ImageSource, *, image_size: int, channels: int, keeps: bool = True) -> None:
        self._images, self._image_size, self._channels = images, image_size, channels
        self._keeps = keeps and fits_in_memory(images, image_size=image_size, channels=channels)
        self._kept: dict[int, np.ndarray] = {}  # small datasets are decoded once, not once an epoch

    def read(self, index: int, *, mirrored: bool) -> np.ndarray:
        """See :class:`Reader`."""
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = self._decode(index)
            if self._keeps:
                self._kept[index] = pixels
        return np.ascontiguousarray(pixels[..., ::-1]) if mirrored else pixels

    def _decode(self, index: int) -> np.ndarray:
        image = decode(self._images.read(index), channels=self._channels, name=self._images.name(index))
        square = np.asarray(center_crop(image, image_size=self._image_size))  # (H, W) or (H, W, C)
        return np.ascontiguousarray(square.reshape(*square.shape[:2], self._channels).transpose(2, 0, 1))  # (C, H, W)


def fits_in_memory(images: ImageSource, *, image_size: int, channels: int) -> bool:
    """Whether the decoded images are few and small enough that a process keeps them all."""
    return len(images) * channels * image_size**2 <= KEPT_BYTES


class TrainingImages(Dataset[Sample]):
    """Perhaps mirrored images by (epoch, index), for the workers of a torch DataLoader.

    An unreadable image is replaced by the next readable one (index + 1, ... modulo n), at most ``max_bad`` of them in
    a row; a sample is mirrored or not by (seed, epoch, the index of the image that is shown).
    """

    def __init__(
        self, images: ImageSource, reader: Reader, *, seed: int, flip: bool, max_bad: int, captions: bool = False
    ) -> None:
        self._captions = captions
        self._images, self._reader = images, reader
        self._seed, self._flip = seed, flip
        self._tries = min(len(images), max_bad + 1)
        self._mirrored_in, self._mirror = -1, np.empty(0, bool)  # the choices of one epoch

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, place: Place) -> Sample:
        epoch, first = place
        problems = []
        for index in ((first + k) % len(self) for k in range(self._tries)):
            try:
                values = self._reader.read(index, mirrored=self._flip and self._mirrored(index, epoch=epoch))
                caption = self._images.caption(index) if self._captions else None
            except DataError as error:
                problems.append((index, error.message))
                continue
            except Damaged as error:
                return Sample(index, None, problems, fault=str(error))
            return Sample(index, values, problems, caption)
        return Sample(first, None, problems)

    def _mirrored(self, index: int, *, epoch: int) -> bool:
        if self._mirrored_in != epoch:
            everyone = range(len(self))
            self._mirror = randomness.uniform("flip", seed=self._seed, step=epoch, indices=everyone).numpy() < 0.5
            self._mirrored_in = epoch
        return bool(self._mirror[index])


def read_batches(
    images: ImageSource,
    reader: Reader,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    flip: bool,
    workers: int,
    max_bad: int,
    captions: bool = False,
    share: range | None = None,
) -> Iterator[Batch]:
    """The batches of steps ``start_step`` to ``stop_step`` - 1, the same for any ``workers`` (processes; 0: none).

    An epoch is a permutation of all images and nothing is dropped. Starting at any step costs the same. ``share`` is
    this process' part of the ``batch_size`` places of a step; None: all of them. An unreadable
    image is replaced (see :class:`TrainingImages`) and reported once, in the batch that meets it first. Raises
    DataError when more than ``max_bad`` different files are unreadable, when all are, when a worker is killed, or when
    the reader's own files are damaged.
    """
    dataset = TrainingImages(images, reader, seed=seed, flip=flip, max_bad=max_bad, captions=captions)
    order = Order(len(images), batch_size=batch_size, seed=seed, spans=images.spans)
    steps = range(start_step, stop_step)
    found = load(
        dataset, steps=steps, places=lambda step: order.places(step, share=share), collate=_stack, workers=workers
    )
    bad: dict[int, str] = {}
    with contextlib.closing(found):  # or workers would live as long as an error's traceback
        for step, samples in zip(steps, found, strict=True):
            new = {index: message for index, message in samples.problems if index not in bad}
            bad.update(new)
            if samples.faults:
                raise DataError(samples.faults[0], hint="Go on with --resume: what is damaged is made anew.")
            check_bad(list(bad.values()), images, max_bad=max_bad)
            assert samples.values is not None
            yield Batch(
                step=step,
                values=samples.values,
                labels=torch.from_numpy(images.labels[samples.indices]),
                indices=torch.tensor(samples.indices),
                bad=list(new.values()),
                captions=samples.captions if captions else None,
            )


def check_bad(bad: list[str], images: ImageSource, *, max_bad: int) -> None:
    """Raise DataError when more than ``max_bad`` images are unreadable, or all are; ``bad`` says why for each."""
    first = "; ".join(bad[:_SHOWN]) + ("; ..." if len(bad) > _SHOWN else "")
    if len(bad) == len(images):
        raise DataError(f"none of the {len(images)} images in {images.path} can be read: {first}")
    if len(bad) > max_bad:
        raise DataError(
            f"{len(bad)} images in {images.path} cannot be read and at most {max_bad} may be bad: {first}",
            hint="Mend or remove these files, or allow more of them with --max-bad.",
        )


def _stack(samples: list[Sample]) -> _Samples:
    values = [sample.values for sample in samples if sample.values is not None]
    return _Samples(
        values=torch.from_numpy(np.stack(values)) if len(values) == len(samples) else None,
        indices=[sample.index for sample in samples],
        captions=[sample.caption for sample in samples if sample.caption is not None],
        problems=[problem for sample in samples for problem in sample.problems],
        faults=[sample.fault for sample in samples if sample.fault is not None],
    )
