"""One case of chaos: damage or forge one input, open it as the tool does, and judge how that ended."""

from __future__ import annotations

import gc
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from dmp_cli.errors import DMPError

GOOD = ("own error", "same")
BAD = ("traceback", "wrong", "late", "large")
MEMORY = 1 << 30  # bytes that opening one input may take, beside what the process has already
_PACKAGE = "dmp_cli/"
_NO_MEMORY = ("allocate memory", "bad_alloc", "not enough memory")  # what C++ says of it, in errors of other types


class Ended(Exception):
    """A whole command ended in its own error: one message, and exit code 1 or 2."""


class Late(BaseException):
    """The alarm rang. It is no Exception, so that no reader takes it for damage."""


class Kind:
    """One kind of input. It is made in a folder of its own, where it builds the undamaged input once.

    ``ways`` are its ways to damage or forge: name -> a function that writes the input of one case into a folder.
    """

    seconds: ClassVar[float] = (
        5.0  # of computing that opening may take; twice as many by the clock, as others compute too
    )
    bounded: ClassVar[bool] = True  # whether memory and time of a case are limited
    most: ClassVar[int | None] = None  # how many cases there are sense in; None: any number
    ways: dict[str, Callable[[random.Random, Path], Any]]

    def __init__(self, base: Path) -> None:
        self.base = base

    def write(self, place: Path) -> None:
        """Write the undamaged input into ``place``."""
        raise NotImplementedError

    def open(self, place: Path, way: str) -> str | None:
        """Open what is in ``place`` as the tool does. None: what came out is right; else what is wrong with it.

        Raises:
            DMPError, Ended: the tool refuses it. Any other error is a failure.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Outcome:
    """How one case ended."""

    kind: str
    number: int
    way: str
    verdict: str  # one of GOOD or BAD
    seconds: float = 0.0
    megabytes: float = 0.0
    error: str = ""
    where: str = ""  # the innermost lines, in this package and in any other
    message: str = ""

    @property
    def failed(self) -> bool:
        return self.verdict in BAD


def way_of(kind: Kind, number: int) -> str:
    """The way in which case ``number`` is made: each in turn, so that few cases try all."""
    names = list(kind.ways)
    return names[number % len(names)]


def make(kind: Kind, name: str, number: int, *, seed: int, place: Path) -> str:
    """Write the input of one case into the empty folder ``place``; the way in which it was made."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    way = way_of(kind, number)
    kind.ways[way](random.Random(f"{name}/{seed}/{number}"), place)
    return way


_SCARCE = ("too little memory", "out of memory")


def judge(kind: Kind, name: str, number: int, *, seed: int, place: Path, reraise: bool = False) -> Outcome:
    """Make one case, open it under the limits, and say how it ended. ``reraise``: let what escapes escape."""
    way = make(kind, name, number, seed=seed, place=place)
    before, start, computed = _reset_peak(), time.monotonic(), time.process_time()
    verdict, error, message, where = "same", "", "", ""
    try:
        with_limits = _limits(kind) if kind.bounded else _no_limits
        complaint = with_limits(lambda: kind.open(place, way))
        if complaint is not None:
            verdict, message = "wrong", complaint
    except (DMPError, Ended) as found:
        # A sentence about memory is the tool's own, but nothing here should need that much.
        scarce = any(words in str(found) for words in _SCARCE)
        verdict, error, message = "large" if scarce else "own error", type(found).__name__, str(found)
    except BaseException as found:
        if reraise:
            raise
        verdict, error, message, where = _verdict(found), type(found).__name__, str(found), _where(found)
    seconds, megabytes = time.monotonic() - start, (_peak() - before) / 2**20
    if kind.bounded and verdict in GOOD and time.process_time() - computed > kind.seconds:
        verdict = "late"
    if kind.bounded and verdict in GOOD and megabytes * 2**20 > MEMORY:
        verdict = "large"
    short = message.encode("utf-8", "backslashreplace").decode()[:300]
    return Outcome(name, number, way, verdict, round(seconds, 3), round(megabytes, 1), error, where, short)


def _limits(kind: Kind) -> Callable[[Callable[[], str | None]], str | None]:
    # RLIMIT_DATA counts what a process allocates, and not the files it maps, which take no memory of their own.
    def run(call: Callable[[], str | None]) -> str | None:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        old = {number: signal.signal(number, _ring) for number in (signal.SIGALRM, signal.SIGPROF)}
        size = memory_of("VmData")
        try:
            if size:
                resource.setrlimit(resource.RLIMIT_DATA, (size + MEMORY, hard))
            signal.setitimer(signal.ITIMER_PROF, kind.seconds)
            signal.setitimer(signal.ITIMER_REAL, 2 * kind.seconds)
            return call()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
            for number, handler in old.items():
                signal.signal(number, handler)

    return run


def _no_limits(call: Callable[[], str | None]) -> str | None:
    return call()


def _ring(number: int, frame: FrameType | None) -> None:
    raise Late("the alarm rang")


def _verdict(error: BaseException) -> str:
    if isinstance(error, Late):
        return "late"
    text = str(error)
    return "large" if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY) else "traceback"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if _PACKAGE in f.filename]
    last = inside[-1] if inside else None
    told = [f"{f.filename.rpartition('/site-packages/')[2].rpartition(_PACKAGE)[2]}:{f.lineno}" for f in (last,) if f]
    if frames and frames[-1] is not last:
        told.append(f"{frames[-1].filename.rpartition('/site-packages/')[2]}:{frames[-1].lineno}")
    return " < ".join(told)


def memory_of(field: str) -> int:
    """A size in /proc/self/status, in bytes; 0 where there is no such file."""
    if sys.platform != "linux":
        return 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> int:
    """Forget the most memory this process has had; what it has now, in bytes."""
    if sys.platform != "linux":
        return _peak()
    Path("/proc/self/clear_refs").write_text("5")
    return memory_of("VmRSS")


def _peak() -> int:
    scale = 1 if sys.platform == "darwin" else 1024
    return memory_of("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def has_grown(since: int) -> bool:
    """Whether this process holds much more memory than ``since``, even after garbage is collected."""
    if memory_of("VmRSS") < since + MEMORY:
        return False
    gc.collect()
    return memory_of("VmRSS") > since + MEMORY
