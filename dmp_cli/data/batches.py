"""Batches of images, classes and captions for training: the data of a step is a pure function of (seed, step).

B images a batch, C channels, H = W = image size in pixels, n images in the data set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from ..runtime import randomness
from .bucket_order import BucketOrder
from .bucket_reader import BucketReader
from .framing import Cut, Frame
from .readers import Damaged, Reader
from .shuffling import Order, Place
from .source import ImageSource
from .workers import load

_SHOWN = 3  # unreadable files that an error names
_EPOCHS = 3  # whose mirroring is kept


@dataclass(frozen=True)
class Batch:
    """The images of one step: row k of ``values`` is image ``indices[k]`` of the source, of class ``labels[k]``."""

    step: int
    values: Tensor  # (B, C, H, W): uint8 pixels, or a codec's float32 values
    labels: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64
    bad: list[str]  # a message for each unreadable file that is found for the first time
    remarks: list[str] = field(default_factory=list)  # what Pillow warned of, each remark once
    captions: list[str] | None = None  # one per image, when they were asked for
    frames: Tensor | None = None  # (B, 6) a Frame for each image, where they are in buckets


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 pixels in 0..255 -> float32 in [-1, 1]."""
    return pixels.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> np.ndarray:
    """Floats in [-1, 1], (B, C, H, W) -> uint8 (B, H, W, C): clipped, then rounded to the nearest level."""
    levels = (images.float().clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True)
class Sample:
    """What a worker sends for one place of a batch: an image, or why there is none. Errors are sent as messages."""

    index: int
    values: np.ndarray | None  # (C, H, W); None: none of the images tried could be read
    problems: list[tuple[int, str]]  # (index, message) of each unreadable file that was tried
    caption: str | None = None  # None: captions were not asked for
    fault: str | None = None  # a message, when training cannot continue
    frame: Frame | None = None  # None: there are no buckets
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Samples:
    values: Tensor | None  # (B, C, H, W); pixels stay uint8, a quarter of the shared memory of float32
    indices: list[int]
    captions: list[str]  # empty when they were not asked for
    problems: list[tuple[int, str]]
    faults: list[str]
    remarks: list[str]
    frames: list[Frame]  # empty without buckets


class TrainingImages(Dataset[Sample]):
    """Images by (epoch, index), mirrored at random with ``flip``, for the workers of a torch DataLoader.

    An unreadable image is replaced by the next readable one (index + 1, ... modulo n; of a reader of buckets the next
    of the same bucket), after at most ``max_bad`` unreadable ones in a row. Whether an image is mirrored, which of its
    captions it gets, and which part of it where that is random, depends on (seed, epoch, index of the image shown).
    """

    def __init__(
        self, images: ImageSource, reader: Reader, *, seed: int, flip: bool, max_bad: int, captions: bool = False
    ) -> None:
        self.buckets = reader.buckets if isinstance(reader, BucketReader) else None
        self._captions = captions
        self._images, self._reader = images, reader
        self._seed, self._flip = seed, flip
        self._tries = min(len(images), max_bad + 1)
        self._mirror: dict[int, np.ndarray] = {}  # of the last epochs, whether each image is mirrored

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, place: Place) -> Sample:
        epoch, first = place
        problems = []
        for index in (self._follow(first, k) for k in range(self._tries)):
            mirrored = self._flip and self._mirrored(index, epoch=epoch)
            try:
                cut = self._cut(index, epoch=epoch)
                how = {} if cut is None else {"cut": cut}
                values = self._reader.read(index, mirrored=mirrored, **how)
                caption = self._caption(index, epoch=epoch) if self._captions else None
            except DataError as error:
                problems.append((index, error.message))
                continue
            except Damaged as error:
                return Sample(index, None, problems, fault=str(error))
            frame = None if self.buckets is None else self.buckets.frame(index, mirrored=mirrored, cut=cut)
            return Sample(index, values, problems, caption, remarks=self._reader.take_remarks(), frame=frame)
        return Sample(first, None, problems)

    def order(self, batch_size: int) -> Order | BucketOrder:
        """Which places a step shows."""
        how: dict[str, Any] = {"batch_size": batch_size, "seed": self._seed, "spans": self._images.spans}
        return Order(len(self), **how) if self.buckets is None else BucketOrder(self.buckets, **how)

    def _follow(self, first: int, count: int) -> int:
        return (first + count) % len(self) if self.buckets is None else self.buckets.follow(first, count)

    def _cut(self, index: int, *, epoch: int) -> Cut | None:
        """Which part of an image is cut out; None: its centre."""
        if not (isinstance(self._reader, BucketReader) and self._reader.random_crop):
            return None
        return Cut(*randomness.generator("crop", seed=self._seed, step=epoch, index=index).random(2).tolist())

    def _caption(self, index: int, *, epoch: int) -> str:
        """One of the captions of an image, each equally often over the epochs."""
        texts = self._images.captions(index)
        if len(texts) == 1:
            return texts[0]
        draw = randomness.generator("caption", seed=self._seed, step=epoch, index=index)
        return texts[int(draw.random() * len(texts))]

    def _mirrored(self, index: int, *, epoch: int) -> bool:
        if epoch not in self._mirror:
            draws = randomness.uniform("flip", seed=self._seed, step=epoch, indices=range(len(self)))
            kept = list(self._mirror)[1 - _EPOCHS :]  # buckets are in epochs of their own
            self._mirror = {**{key: self._mirror[key] for key in kept}, epoch: draws.numpy() < 0.5}
        return bool(self._mirror[epoch][index])


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

    An epoch is a permutation of all images; no image is dropped. Starting at any step costs the same. ``share`` is this
    process' part of the ``batch_size`` places of a step; None: all places. A :class:`BucketReader` has a step show one
    bucket. An unreadable image is replaced (see :class:`TrainingImages`) and reported once, in the first such batch.

    Raises:
        DataError: more than ``max_bad`` different files are unreadable, or all files; a worker was killed; or the
            reader's own files are damaged.
    """
    dataset = TrainingImages(images, reader, seed=seed, flip=flip, max_bad=max_bad, captions=captions)
    order, steps = dataset.order(batch_size), range(start_step, stop_step)
    found = load(dataset, steps=steps, places=partial(order.places, share=share), collate=_stack, workers=workers)
    bad: dict[int, str] = {}
    said: set[str] = set()
    with contextlib.closing(found):  # else the workers would live as long as the traceback of an error
        for step, samples in zip(steps, found, strict=True):
            new = {index: message for index, message in samples.problems if index not in bad}
            bad.update(new)
            if samples.faults:
                raise DataError(samples.faults[0], hint="Continue with --resume: damaged files are made again.")
            check_bad(list(bad.values()), images, max_bad=max_bad)
            if samples.values is None:  # all of a bucket are bad, and not all of the data
                raise DataError(f"no image of a bucket can be read: {_first_of(list(bad.values()))}")
            remarks = [remark for remark in dict.fromkeys(samples.remarks) if remark not in said]
            said.update(remarks)
            yield Batch(
                step=step,
                values=samples.values,
                labels=torch.from_numpy(images.labels[samples.indices]),
                indices=torch.tensor(samples.indices),
                bad=list(new.values()),
                remarks=remarks,
                captions=samples.captions if captions else None,
                frames=torch.tensor(samples.frames) if samples.frames else None,
            )


def check_bad(bad: list[str], images: ImageSource, *, max_bad: int) -> None:
    """Raise DataError when more than ``max_bad`` images, or all, are unreadable; ``bad`` has a message for each."""
    first = _first_of(bad)
    if len(bad) == len(images):
        raise DataError(f"none of the {len(images)} images in {images.path} can be read: {first}")
    if len(bad) > max_bad:
        raise DataError(
            f"{len(bad)} images in {images.path} cannot be read and at most {max_bad} may be bad: {first}",
            hint="Repair or remove these files, or allow more of them with --max-bad.",
        )


def _first_of(bad: list[str]) -> str:
    return "; ".join(bad[:_SHOWN]) + ("; ..." if len(bad) > _SHOWN else "")


def _stack(samples: list[Sample]) -> _Samples:
    values = [sample.values for sample in samples if sample.values is not None]
    return _Samples(
        values=torch.from_numpy(np.stack(values)) if len(values) == len(samples) else None,
        indices=[sample.index for sample in samples],
        captions=[sample.caption for sample in samples if sample.caption is not None],
        problems=[problem for sample in samples for problem in sample.problems],
        faults=[sample.fault for sample in samples if sample.fault is not None],
        remarks=[remark for sample in samples for remark in sample.remarks],
        frames=[sample.frame for sample in samples if sample.frame is not None],
    )
