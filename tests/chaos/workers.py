"""Runs cases in a few forked processes, so that one bad case does not end the programme."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path

from .cases import Ended, Kind, Outcome, has_grown, judge, memory_of, way_of
from .kinds import kind_of

_GRACE = 5.0  # seconds after the alarm, until a process that does not answer is killed
_START = 300.0  # seconds in which a process builds its undamaged input
_LOOK = 5.0  # seconds between two looks whether the parent is alive
PROCESSES = 2


def temporary_root() -> Path | None:
    """A folder in memory, where there is one."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else None


def build(name: str, root: Path) -> Kind:
    """The kind with its undamaged input, which must open without a complaint."""
    base, place = root / "base", root / "sound"
    base.mkdir(parents=True)
    place.mkdir()
    kind = kind_of(name)(base)
    kind.write(place)
    try:
        complaint = kind.open(place, "sound")
    except Ended as error:
        complaint = str(error)
    if complaint is not None:
        raise AssertionError(f"the undamaged input of {name} does not open: {complaint}")
    return kind


def _serve(name: str, seed: int, root: Path, pipe: Connection) -> None:
    """What a worker does: answer each number that comes with the outcome of that case."""
    import torch

    torch.set_num_threads(1)
    kind = build(name, root)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    pipe.send(list(kind.ways))
    start = memory_of("VmRSS")
    while (number := _next(pipe)) is not None:
        try:
            outcome = judge(kind, name, number, seed=seed, place=root / "case")
        except Exception as error:
            told = f"the case could not be made: {error}"
            outcome = Outcome(name, number, way_of(kind, number), "traceback", error=type(error).__name__, message=told)
        pipe.send(outcome)
        if has_grown(start):
            return


def _next(pipe: Connection) -> int | None:
    """The next number; None when the parent has gone, which does not close a pipe that other workers hold too."""
    parent = multiprocessing.parent_process()
    while not pipe.poll(_LOOK):
        if parent is None or not parent.is_alive():
            return None
    return pipe.recv()


class _Worker:
    """One forked process and the case it is at."""

    def __init__(self, name: str, seed: int, root: Path) -> None:
        start = multiprocessing.get_context("fork")
        self.pipe, inner = start.Pipe()
        folder = Path(tempfile.mkdtemp(dir=root))
        self.process = start.Process(target=_serve, args=(name, seed, folder, inner))
        self.process.start()
        inner.close()
        self.number: int | None = None
        self.ways: list[str] = []  # empty until its undamaged input is built
        self.deadline = time.monotonic() + _START

    def give(self, number: int, *, seconds: float) -> bool:
        """Hand over a case; False when the process has gone."""
        try:
            self.pipe.send(number)
        except OSError:
            return False
        self.number, self.deadline = number, time.monotonic() + seconds
        return True

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _import_slow() -> None:
    """Import what nearly every kind needs before the fork, so that no process has to do it again."""
    library = import_module("diffusers")
    for name in ("AutoencoderKL", "DDIMScheduler", "DiTTransformer2DModel", "UNet2DModel"):
        getattr(library, name)  # which imports its module


def run_cases(name: str, numbers: Sequence[int], *, seed: int, processes: int = PROCESSES) -> Iterator[Outcome]:
    """Yields the outcome of each case of a kind, in the order in which they end."""
    kind = kind_of(name)
    _import_slow()
    seconds = 3 * kind.seconds + _GRACE if kind.bounded else 600.0
    waiting = list(reversed(numbers))
    with tempfile.TemporaryDirectory(dir=temporary_root(), prefix="chaos-") as root:
        workers = [_Worker(name, seed, Path(root)) for _ in range(max(1, min(processes, len(numbers) // 8)))]
        try:
            while workers:
                yield from _turn(workers, waiting, name=name, seed=seed, root=Path(root), seconds=seconds)
        finally:
            for worker in workers:
                worker.stop()


def _turn(
    workers: list[_Worker], waiting: list[int], *, name: str, seed: int, root: Path, seconds: float
) -> Iterator[Outcome]:
    """Wait until a worker answers, ends or is too late; give it the next case, or put another in its place."""
    until = min(worker.deadline for worker in workers) - time.monotonic()
    answering = wait([worker.pipe for worker in workers], timeout=max(0.0, until))
    for worker in list(workers):
        gone = False
        if worker.pipe in answering:
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                gone = True
            else:
                if isinstance(answer, Outcome):
                    yield answer
                else:
                    worker.ways = answer
                worker.number = None
                if not waiting:
                    worker.stop()
                    workers.remove(worker)
                    continue
                gone = not worker.give(waiting[-1], seconds=seconds)
                if not gone:
                    waiting.pop()
        late = not gone and time.monotonic() > worker.deadline
        if not gone and not late:
            continue
        worker.stop()
        workers.remove(worker)
        if not worker.ways:
            raise AssertionError(f"the undamaged input of {name} cannot be built; try --only {name}:0")
        if worker.number is not None:
            yield _lost(worker, name, late=late, seconds=seconds)
        if waiting:
            workers.append(_Worker(name, seed, root))


def _lost(worker: _Worker, name: str, *, late: bool, seconds: float) -> Outcome:
    """The outcome of the case that a worker was at when it died or was killed."""
    assert worker.number is not None
    way = worker.ways[worker.number % len(worker.ways)]
    if late:
        return Outcome(name, worker.number, way, "late", seconds, message="it did not answer and was killed")
    return Outcome(name, worker.number, way, "traceback", message=f"the process died: {worker.process.exitcode}")
