"""A command as a process of its own on this machine, with its own device and number of threads."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..runtime import ask_to_end, thread_environment, tied
from ..storage import holder_of
from .devices import Slot
from .graph import Job
from .schedule import Outcome

_PATIENCE = 120.0  # seconds that such a process has, before the folder's own error is shown
_KEPT = 200  # newest lines of what a process says
_ERROR, _WARNING = "error: ", "warning: "


class Here:
    """Places on this machine, one for each slot. A process has as many threads as this one has now."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots, self._threads = list(slots), thread_environment()
        self._began = time.monotonic()

    def free(self) -> bool:
        return bool(self._slots)

    def may_start(self, job: Job) -> bool:
        """Not while a process of an earlier call, which was killed, still saves what it made for this job."""
        if job.output is None or time.monotonic() - self._began > _PATIENCE:
            return True
        return not job.output.is_dir() or holder_of(job.output) is None

    def start(self, job: Job) -> Process:
        return Process(job.typed(), self._slots.pop(0), self._threads, back=self._slots)


class Process:
    """One command at work. Its slot goes back when it has ended."""

    def __init__(self, command: Sequence[str], slot: Slot, threads: Mapping[str, str], *, back: list[Slot]) -> None:
        self.where, self._slot, self._back = slot.where, slot, back
        environment = environment_of_child({**threads, **slot.environment})
        tied(environment)
        self._process = subprocess.Popen(
            argv_of(command),
            env=environment,
            stdin=subprocess.PIPE,  # held open: the process ends with this one
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C comes to this process alone, which asks the others to end
        )
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def poll(self) -> Outcome | None:
        code = self._process.poll()
        if code is None:
            return None
        self._reader.join(timeout=1)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._back.append(self._slot)
        return outcome_of(list(self._lines), code)

    def remark(self) -> str:
        return self._lines[-1] if self._lines else ""

    def stop(self) -> None:
        if self._process.poll() is None:
            ask_to_end(self._process)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                if told := line.decode("utf-8", "replace").rstrip():
                    self._lines.append(told)


def argv_of(command: Sequence[str]) -> list[str]:
    """How this Python runs a command of dmp."""
    return [sys.executable, "-m", "dmp_cli", *command]


def environment_of_child(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that runs this very dmp, and no file of the current folder."""
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", **more}


def outcome_of(lines: Sequence[str], code: int) -> Outcome:
    """How a command ended, from what it said and its exit code."""
    warnings = [line.removeprefix(_WARNING) for line in lines if line.startswith(_WARNING)]
    return Outcome(code, [] if code == 0 else error_in(lines, code), warnings)


def error_in(lines: Sequence[str], code: int) -> list[str]:
    """What a command said of its error, a line each; where it said nothing, how its process ended."""
    starts = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    if starts:
        first, *rest = lines[starts[-1] :]
        return [first.removeprefix(_ERROR), *rest]
    if code < 0:
        why = ", perhaps as memory ran out" if -code == signal.SIGKILL else ""
        return [f"its process was ended by {signal.Signals(-code).name}{why}"]
    return [lines[-1]] if lines else [f"it ended with exit code {code}"]
