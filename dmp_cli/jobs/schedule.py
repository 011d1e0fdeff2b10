"""Carries jobs out: as many at once as there are places, each when what it waits for is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import DMPError, StoppedError
from ..runtime import Foresight, StopRequest, name_of
from .graph import Job

_PAUSE = 0.05  # seconds between two looks
_GRACE = 30.0  # seconds that a process has to end where it stands


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    told: Sequence[str] = ()  # its error, a line each
    warnings: Sequence[str] = ()  # what it warned of, a line each


class Running(Protocol):
    """One command at work."""

    where: str  # the device, or the job of a cluster

    def poll(self) -> Outcome | None:
        """How it ended; None: it has not."""

    def remark(self) -> str:
        """The newest line that it said of its progress."""

    def stop(self) -> None:
        """Ask it to save and end; a second time: to end at once."""

    def kill(self) -> None:
        """End it without asking."""


class Places(Protocol):
    """Where commands run."""

    def free(self) -> bool:
        """Whether there is room for one more."""

    def may_start(self, job: Job) -> bool:
        """Whether nothing of an earlier call is in the way."""

    def start(self, job: Job) -> Running:
        """Run the command of a job."""


class Board(Protocol):
    """Who is told what runs where."""

    def began(self, job: Job, running: Running, command: Sequence[str]) -> None:
        """A job has begun."""

    def ended(self, job: Job, running: Running, outcome: Outcome) -> None:
        """A job has ended."""


def carry_out(jobs: Sequence[Job], places: Places, board: Board) -> None:
    """Run all jobs that are not done.

    Where one fails, what has not begun never begins, and what runs is asked to save and end. A signal does the same.

    Raises:
        DMPError: a job has failed; the error is its own, and names it.
        StoppedError: a signal asked for the end; the same jobs go on later.
    """
    with StopRequest(speaks=True) as request:
        work = _Work(jobs, places, board)
        request.foretell(lambda: Foresight(f"letting {len(work.running)} running commands save", "end them at once"))
        try:
            while work.goes_on(asked=request.number is not None):
                time.sleep(_PAUSE)
        finally:
            work.end()
    if work.failed is not None:
        raise work.failed
    if request.number is not None:
        raise StoppedError(
            f"stopped by {name_of(request.number)}; {len(work.waiting)} of {len(jobs)} commands are left, and the same "
            "command goes on",
            signal_number=request.number,
        )


class _Work:
    """What is left, and what runs."""

    def __init__(self, jobs: Sequence[Job], places: Places, board: Board) -> None:
        self.waiting = {job.number: job for job in jobs if not job.done}
        self.running: dict[int, tuple[Job, Running]] = {}
        self.failed: DMPError | None = None
        self._places, self._board, self._asked = places, board, False

    def goes_on(self, *, asked: bool) -> bool:
        """Look at what runs and begin what can; whether anything is left to wait for."""
        self._collect()
        if (asked or self.failed is not None) and not self._asked:
            self._asked = True
            self._stop_all()
        if self._asked:
            return bool(self.running)
        self._begin()
        return bool(self.waiting)

    def end(self) -> None:
        """Leave nothing behind that runs: only needed where an error or a second signal broke the loop."""
        if not self.running:
            return
        self._stop_all()
        ends = time.monotonic() + _GRACE
        while self.running and time.monotonic() < ends:
            self._collect()
            time.sleep(_PAUSE)
        for _, running in self.running.values():
            running.kill()

    def _collect(self) -> None:
        for job, running in list(self.running.values()):
            outcome = running.poll()
            if outcome is None:
                continue
            del self.running[job.number]
            if outcome.code == 0:
                job.finish()
                del self.waiting[job.number]
            elif not self._asked and self.failed is None:
                self.failed = _error_of(job, outcome)
            self._board.ended(job, running, outcome)

    def _begin(self) -> None:
        for job in list(self.waiting.values()):
            if not self._places.free():
                return
            if job.number not in self.running and not job.waits & self.waiting.keys() and self._places.may_start(job):
                job.begin()
                running = self._places.start(job)
                self.running[job.number] = job, running
                self._board.began(job, running, job.typed())

    def _stop_all(self) -> None:
        for _, running in self.running.values():
            running.stop()


def _error_of(job: Job, outcome: Outcome) -> DMPError:
    """The error of a job, which says what the command itself has said."""
    first, *rest = outcome.told or (f"it ended with exit code {outcome.code}",)
    return DMPError(f"{job.name}: {first}", details=[line.strip() for line in rest])
