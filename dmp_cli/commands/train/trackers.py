"""The trackers of a run: each works in a thread of its own, and one that fails is left out, never the run."""

from __future__ import annotations

import contextlib
import queue
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .tracker_kinds import KINDS, NAMES, Kind, NewRun

if TYPE_CHECKING:
    import numpy as np

    from .job import Job

_MOST_WAITING = 2000  # calls that a tracker may be behind
_AT_THE_END, _WHEN_STOPPED = 60.0, 5.0  # seconds that a tracker gets to send what it has


class _Lane:
    """One tracker and the thread that calls it, in the order of the calls."""

    def __init__(self, name: str, kind: Kind) -> None:
        self.name, self.kind = name, kind
        self.trouble: str | None = None  # why it is left out
        self._calls: queue.Queue[Callable[[], Any] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def add(self, call: Callable[[], Any]) -> None:
        """Have ``call`` made, after those before it."""
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self.trouble = f"it is {_MOST_WAITING:,} calls behind"

    def end(self) -> None:
        """No call comes any more."""
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(None)

    def join(self, seconds: float) -> None:
        """Wait until all is done, at most so long."""
        self._thread.join(seconds)
        if self._thread.is_alive() and self.trouble is None:
            self.trouble = f"it had not sent all after {seconds:.0f} s"

    def _work(self) -> None:
        while (call := self._calls.get()) is not None and self.trouble is None:
            try:
                call()
            except BaseException as error:  # a library may well end "the program", which is this thread alone
                told = str(error).strip().splitlines()
                self.trouble = f"{type(error).__name__}: {told[0]}" if told else type(error).__name__


class Trackers:
    """What is told to all trackers of a run that have not failed."""

    def __init__(self, names: Sequence[str], new: NewRun, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lanes = [_Lane(name, KINDS[name]()) for name in names]
        for lane in self._lanes:
            lane.add(lambda kind=lane.kind: kind.begin(new))  # type: ignore[misc]

    @property
    def are_there(self) -> bool:
        """Whether anybody listens."""
        return bool(self._lanes)

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Numbers by name; what is no number is left out."""
        numbers = {name: float(value) for name, value in values.items() if type(value) in (int, float)}
        numbers.pop("step", None)
        self._tell(lambda kind: kind.scalars(numbers, step))

    def histograms(self, values: Mapping[str, np.ndarray], step: int) -> None:
        """How the numbers of each array are spread."""
        if values:
            self._tell(lambda kind: kind.histograms(values, step))

    def image(self, name: str, png: bytes, step: int) -> None:
        """A picture."""
        self._tell(lambda kind: kind.image(name, png, step))

    def close(self, *, seconds: float) -> None:
        """Let each send what it has, and say which one could not."""
        self._tell(lambda kind: kind.finish())
        for lane in self._lanes:
            lane.end()
        for lane in self._lanes:
            lane.join(seconds)
        self._drop_failed()

    def _tell(self, call: Callable[[Kind], Any]) -> None:
        self._drop_failed()
        for lane in self._lanes:
            lane.add(lambda kind=lane.kind: call(kind))  # type: ignore[misc]

    def _drop_failed(self) -> None:
        for lane in self._lanes:
            if lane.trouble is not None:
                self._warn(f"{lane.name} is told nothing any more, and the run goes on: {lane.trouble}")
        self._lanes = [lane for lane in self._lanes if lane.trouble is None]


@contextlib.contextmanager
def tracked(
    names: Sequence[str], run: Path, *, config: Mapping[str, Any], goes_on: bool, warn: Callable[[str], None]
) -> Iterator[Trackers]:
    """Context of a run in the folder ``run`` that trackers are told of; what they print goes to stderr.

    ``goes_on``: whether it continues a run that they may know.
    """
    with contextlib.redirect_stdout(sys.stderr) if names else contextlib.nullcontext():
        if not goes_on:
            shutil.rmtree(run / NAMES, ignore_errors=True)
        trackers = Trackers(names, NewRun(run, config, goes_on), warn)
        try:
            yield trackers
        except BaseException:
            trackers.close(seconds=_WHEN_STOPPED)
            raise
        trackers.close(seconds=_AT_THE_END)


def tracked_job(job: Job, *, goes_on: bool) -> contextlib.AbstractContextManager[Trackers]:
    """The same of a job of ``dmp train``; of several processes the first one alone tells them."""
    names = job.request.options.trackers if job.world.is_first else ()
    return tracked(names, job.run.path, config=job.settings, goes_on=goes_on, warn=job.printer.warn)
