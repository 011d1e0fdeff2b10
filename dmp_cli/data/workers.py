"""Worker processes that read training data, and how a run continues or ends when they are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError

T = TypeVar("T")

_HANG_UP: int = getattr(signal, "SIGHUP", 0)  # 0 on Windows, which has none


def load(
    dataset: Dataset[Any],
    *,
    steps: range,
    places: Callable[[int], list[Any]],
    collate: Callable[[list[Any]], T],
    workers: int,
) -> Generator[T, None, None]:
    """Yield for each of ``steps`` the samples of ``dataset`` at ``places(step)``, joined by ``collate``.

    ``workers`` processes read them; 0: this process does.

    Raises:
        DataError: a worker was killed.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=(places(step) for step in steps),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator(),  # else the loader would advance the global generator
    )
    others = set(multiprocessing.active_children())
    stream = iter(loader)  # starts the workers
    own = [worker for worker in multiprocessing.active_children() if worker not in others]
    done = 0
    try:
        for done, samples in enumerate(stream, start=1):  # noqa: B007 (read below, after an error)
            yield samples
        return
    except (RuntimeError, OSError, EOFError) as error:  # the type depends on where the loader was when a worker ended
        _check_ended(own, error)
    del stream  # ends the remaining workers
    # A SIGTERM to the whole process group has ended the workers: read on in this process, so that the caller can save.
    yield from load(dataset, steps=steps[done:], places=places, collate=collate, workers=0)


def _check_ended(workers: list[BaseProcess], error: Exception) -> None:
    """Raise ``error`` again when no worker has ended, and DataError when one was killed by no SIGTERM or SIGHUP."""
    codes = _exit_codes(workers)
    if not codes:
        raise error
    if not codes <= {0, -signal.SIGTERM, -_HANG_UP}:
        raise DataError(
            "a worker process that reads images was killed",
            hint="The usual cause is too little memory, or shared memory (/dev/shm): use fewer --workers, or 0.",
        ) from error


def _exit_codes(workers: list[BaseProcess]) -> set[int | None]:
    try:
        wait([worker.sentinel for worker in workers], timeout=1)  # a worker may end only after the error that it causes
        for worker in workers:
            worker.join(timeout=0.1)
        return {worker.exitcode for worker in workers} - {None}  # None: still alive
    except RuntimeError:  # the loader's handler of SIGCHLD raises it once, at any point
        return _exit_codes(workers)


def _leave_signals_to_parent(worker: int) -> None:
    """These signals reach the whole process group, but only the parent decides what to do and what to save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _HANG_UP:
        signal.signal(_HANG_UP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_quietly)


def _end_quietly(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # with another exit status the DataLoader would raise anywhere in the parent, even while it saves
