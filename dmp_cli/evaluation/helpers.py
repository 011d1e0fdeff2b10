"""The helpers of ``dmp eval --jobs``: processes of this machine that compute a share of the features each, and end.

They are told nothing and answer nothing: what they make are files. One that fails says why before it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ..config import EvalConfig
from ..errors import DMPError, MetricError
from ..runtime import explaining_memory
from .crew import fill_share
from .scoring import list_measurements


class Helpers:
    """The helpers of one scoring, seen from the process that started them."""

    def __init__(self, config: EvalConfig, folder: Path, *, device: str, jobs: int) -> None:
        """Start one helper for each of ``jobs`` but the first, which is this process."""
        self.total = jobs
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self._helpers = []
        for number in range(1, jobs):
            told, telling = context.Pipe(duplex=False)
            how = (config, folder, _device_of(device, number), (number, jobs), os.getpid(), telling)
            process = context.Process(target=_help, args=how, daemon=True)
            process.start()
            telling.close()
            self._helpers.append((process, told))

    def are_working(self) -> bool:
        """Whether one of them has not ended."""
        return any(process.is_alive() for process, _ in self._helpers)

    def check(self) -> None:
        """Raise the DMPError of a helper that failed, or MetricError where one was killed."""
        for process, told in self._helpers:
            if process.exitcode in (None, 0):
                continue
            error = _read(told)
            raise error or MetricError(
                f"a process of --jobs {self.total} has ended ({_reason(process.exitcode)})",
                hint="The usual cause is too little memory: give fewer --jobs. The same command goes on from there.",
            )

    def end(self) -> None:
        """End those that still work."""
        for process, told in self._helpers:
            process.terminate()
            process.join()
            told.close()


@contextmanager
def helping(config: EvalConfig, folder: Path, *, device: str, jobs: int) -> Iterator[Helpers]:
    """Context with ``jobs - 1`` helpers, none of which outlives it."""
    share_threads(jobs, device)
    helpers = Helpers(config, folder, device=device, jobs=jobs)
    try:
        yield helpers
    finally:
        helpers.end()


def share_threads(jobs: int, device: str) -> None:
    """Give each of ``jobs`` processes its part of the cores, where the network runs on them."""
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _help(
    config: EvalConfig, folder: Path, device: str, share: tuple[int, int], parent: int, telling: Connection
) -> None:
    """What a helper does; it ends with status 0 once its share is made, and with 1 after a DMPError."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the whole group: the parent ends its helpers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    share_threads(share[1], device)

    def stop() -> None:
        if os.getppid() != parent:  # it was killed, and nobody waits for what is made here
            os._exit(1)

    try:
        smaller = explaining_memory(f"in process {share[0] + 1} of --jobs {share[1]}", "Give fewer --jobs.")
        with smaller:
            fill_share(list_measurements(config, device), folder, share=share, stop=stop)
    except DMPError as error:
        telling.send(error)
        os._exit(1)


def _device_of(device: str, number: int) -> str:
    """The device of helper ``number``: the GPUs in turn, where no one of them was named."""
    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{number % count}" if count else device


def _read(told: Connection) -> DMPError | None:
    try:
        error = told.recv() if told.poll() else None
    except (EOFError, OSError):
        return None
    return error if isinstance(error, DMPError) else None


def _reason(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
