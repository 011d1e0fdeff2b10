"""Worker processes that read training data, and what becomes of a run when they end."""

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


def load(
    dataset: Dataset[Any],
    *,
    steps: range,
    places: Callable[[int], list[Any]],
    collate: Callable[[list[Any]], T],
    workers: int,
) -> Generator[T, None, None]:
    """``collate`` of the samples at ``places(step)`` for each of ``steps``, read by ``workers`` processes (0: here).

    Raises:
        DataError: a worker was killed.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=(places(step) for step in steps),
        collate_fn=collate,
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
    yield from load(dataset, steps=steps[done:], places=places, collate=collate, workers=0)


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


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and SIGTERM reach the whole process group: what to do, and what to save first, the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_quietly)


def _end_quietly(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # another exit status makes the DataLoader raise wherever the parent happens to be, a save included
