"""Images (and their class) -> batches for training. The data of a step is a pure function of (seed, step).

B images a batch, C channels, H = W = image size in pixels, n images in the data set.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from . import randomness
from .decoding import decode
from .errors import DataError
from .images import ImageSource

Place = tuple[int, int]  # (epoch, index of the image)
_SHOWN = 3  # bad files named in an error
_STRIP = 64  # length to width


_KEPT_BYTES = 1 << 28  # decoded images that one process may keep


@dataclass(frozen=True)
class Batch:
    """One step's images. Row k of ``images`` is the image ``indices[k]`` of the source, of class ``labels[k]``."""

    step: int
    images: Tensor  # (B, C, H, W) float32 in [-1, 1]
    labels: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64
    bad: list[str]  # a message for each unreadable file met for the first time
    captions: list[str] | None = None  # one an image, where they were asked for


@dataclass(frozen=True)
class Sample:
    """One image, or the lack of one, as it travels from a worker: problems are values, so that no traceback does."""

    index: int
    pixels: np.ndarray | None  # (C, H, W) uint8; None: nothing readable among the images tried
    problems: list[tuple[int, str]]  # (index, message) of the unreadable files met on the way
    caption: str | None = None  # None: not asked for


@dataclass(frozen=True)
class _Samples:
    pixels: Tensor | None  # (B, C, H, W) uint8: a quarter of the shared memory that float32 would take
    indices: list[int]
    captions: list[str]  # empty where they were not asked for
    problems: list[tuple[int, str]]


class Order:
    """Which images a step shows: position q = step * batch_size + k of the stream lies in epoch q // n, at q % n."""

    def __init__(self, count: int, *, batch_size: int, seed: int) -> None:
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)  # of the current epoch alone, (n,)

    def places(self, step: int) -> list[Place]:
        """(epoch, image index) of each of the step's ``batch_size`` images; a batch may cross epochs."""
        first = step * self._batch_size
        return [self._place(position) for position in range(first, first + self._batch_size)]

    def _place(self, position: int) -> Place:
        epoch, offset = divmod(position, self._count)
        if epoch != self._epoch:
            self._permutation = randomness.permutation("epoch", self._count, seed=self._seed, step=epoch)
            self._epoch = epoch
        return epoch, int(self._permutation[offset])


class TrainingImages(Dataset[Sample]):
    """Decoded, cropped and perhaps mirrored images by (epoch, index), for the workers of a torch DataLoader.

    An unreadable image is replaced by the next readable one (index + 1, ... modulo n), at most ``max_bad`` of them in
    a row; a sample is mirrored or not by (seed, epoch, the index of the image that is shown).
    """

    def __init__(
        self,
        images: ImageSource,
        *,
        image_size: int,
        channels: int,
        seed: int,
        flip: bool,
        max_bad: int,
        captions: bool = False,
    ) -> None:
        self._captions = captions
        self._images, self._image_size, self._channels = images, image_size, channels
        self._seed, self._flip = seed, flip
        self._tries = min(len(images), max_bad + 1)
        self._keeps = len(images) * channels * image_size**2 <= _KEPT_BYTES
        self._mirrored_in, self._mirror = -1, np.empty(0, bool)  # the choices of one epoch
        self._kept: dict[int, np.ndarray] = {}  # small datasets are decoded once, not once an epoch

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, place: Place) -> Sample:
        epoch, first = place
        problems = []
        for index in ((first + k) % len(self) for k in range(self._tries)):
            try:
                pixels = self._pixels(index)
                caption = self._images.caption(index) if self._captions else None
            except DataError as error:
                problems.append((index, error.message))
                continue
            if self._flip and self._mirrored(index, epoch=epoch):
                pixels = np.ascontiguousarray(pixels[..., ::-1])
            return Sample(index, pixels, problems, caption)
        return Sample(first, None, problems)

    def _pixels(self, index: int) -> np.ndarray:
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = self._decode(index)
            if self._keeps:
                self._kept[index] = pixels
        return pixels

    def _decode(self, index: int) -> np.ndarray:
        image = decode(self._images.read(index), channels=self._channels, name=self._images.name(index))
        square = np.asarray(center_crop(image, image_size=self._image_size))  # (H, W) or (H, W, C)
        return np.ascontiguousarray(square.reshape(*square.shape[:2], self._channels).transpose(2, 0, 1))  # (C, H, W)

    def _mirrored(self, index: int, *, epoch: int) -> bool:
        if self._mirrored_in != epoch:
            everyone = range(len(self))
            self._mirror = randomness.uniform("flip", seed=self._seed, step=epoch, indices=everyone).numpy() < 0.5
            self._mirrored_in = epoch
        return bool(self._mirror[index])


def batches(
    images: ImageSource,
    *,
    image_size: int,
    channels: int,
    batch_size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    flip: bool,
    workers: int,
    max_bad: int,
    captions: bool = False,
) -> Iterator[Batch]:
    """The batches of steps ``start_step`` to ``stop_step`` - 1, the same for any ``workers`` (processes; 0: none).

    An epoch is a permutation of all images and nothing is dropped. Starting at any step costs the same. An unreadable
    image is replaced (see :class:`TrainingImages`) and reported once, in the batch that meets it first. Raises
    DataError when more than ``max_bad`` different files are unreadable, when all are, or when a worker is killed.
    """
    dataset = TrainingImages(
        images, image_size=image_size, channels=channels, seed=seed, flip=flip, max_bad=max_bad, captions=captions
    )
    order = Order(len(images), batch_size=batch_size, seed=seed)
    steps = range(start_step, stop_step)
    bad: dict[int, str] = {}
    for step, samples in zip(steps, _load(dataset, order, steps=steps, workers=workers), strict=True):
        new = {index: message for index, message in samples.problems if index not in bad}
        bad.update(new)
        _check_bad(list(bad.values()), images, max_bad=max_bad)
        assert samples.pixels is not None
        yield Batch(
            step=step,
            images=samples.pixels.float().div_(127.5).sub_(1),  # (B, C, H, W)
            labels=torch.from_numpy(images.labels[samples.indices]),
            indices=torch.tensor(samples.indices),
            bad=list(new.values()),
            captions=samples.captions if captions else None,
        )


def center_crop(image: Image.Image, *, image_size: int) -> Image.Image:
    """The central square of a picture, ``image_size`` pixels wide, as ADM and DiT cut it (their ``center_crop_arr``).

    Halved by BOX while the shorter side is at least twice ``image_size``, then BICUBIC. A picture of exactly that size
    comes back bit for bit. Ours: a strip longer than 64 times its width loses its ends first, to spare the memory.
    """
    longest = _STRIP * min(image.size)
    image = _central(image, width=min(image.width, longest), height=min(image.height, longest))
    while min(image.size) >= 2 * image_size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = image_size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return _central(image, width=image_size, height=image_size)


def _central(image: Image.Image, *, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _check_bad(bad: list[str], images: ImageSource, *, max_bad: int) -> None:
    first = "; ".join(bad[:_SHOWN]) + ("; ..." if len(bad) > _SHOWN else "")
    if len(bad) == len(images):
        raise DataError(f"none of the {len(images)} images in {images.path} can be read: {first}")
    if len(bad) > max_bad:
        raise DataError(
            f"{len(bad)} images in {images.path} cannot be read and at most {max_bad} may be bad: {first}",
            hint="Mend or remove these files, or allow more of them with --max-bad.",
        )


def _load(dataset: TrainingImages, order: Order, *, steps: range, workers: int) -> Iterator[_Samples]:
    loader = DataLoader(
        dataset,
        batch_sampler=(order.places(step) for step in steps),
        collate_fn=_stack,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator(),  # else the loader draws from the global one, which is not ours to advance
    )
    others = set(multiprocessing.active_children())
    stream = iter(loader)  # starts the workers
    own = [worker for worker in multiprocessing.active_children() if worker not in others]
    done = 0
    try:
        for done, samples in enumerate(stream, start=1):  # noqa: B007 (read below, after an error)
            yield samples
        return
    except (RuntimeError, OSError, EOFError) as error:  # by where the loader was when a worker ended
        _check_ended(own, error)
    del stream  # ends the workers that are left
    # A SIGTERM to the whole process group has ended the workers: go on alone, so that the caller can save.
    yield from _load(dataset, order, steps=steps[done:], workers=0)


def _check_ended(workers: list[BaseProcess], error: Exception) -> None:
    """Raise ``error`` again unless it came from workers that a SIGTERM ended; DataError when they were killed."""
    codes = _exit_codes(workers)
    if not codes:
        raise error
    if not codes <= {0, -signal.SIGTERM}:
        raise DataError(
            "a worker process that reads images was killed",
            hint="Most often memory (or shared memory, /dev/shm) ran out: use fewer --workers, or 0.",
        ) from error


def _exit_codes(workers: list[BaseProcess]) -> set[int | None]:
    try:
        wait([worker.sentinel for worker in workers], timeout=1)  # the end may follow its first symptom
        for worker in workers:
            worker.join(timeout=0.1)
        return {worker.exitcode for worker in workers} - {None}  # None: still alive
    except RuntimeError:  # raised once, wherever we are, by the loader's handler of SIGCHLD
        return _exit_codes(workers)


def _stack(samples: list[Sample]) -> _Samples:
    pixels = [sample.pixels for sample in samples if sample.pixels is not None]
    return _Samples(
        pixels=torch.from_numpy(np.stack(pixels)) if len(pixels) == len(samples) else None,
        indices=[sample.index for sample in samples],
        captions=[sample.caption for sample in samples if sample.caption is not None],
        problems=[problem for sample in samples for problem in sample.problems],
    )


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and SIGTERM reach the whole process group: what to do, and what to save first, the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_quietly)


def _end_quietly(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # another exit status makes the DataLoader raise wherever the parent happens to be, a save included
