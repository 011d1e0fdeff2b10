"""The study of docs/study.md, for the minutes that are left: it is stopped in time, and goes on where it stopped.

The script is a list of commands that save what they have when they are asked to end, and that are passed over once
they are done.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "studies" / "cifar10.sh"
STAND_IN = ROOT / "benchmarks" / "studies" / "stand_in.sh"  # of the same shape, and of sizes that say nothing
STUDY = "study"  # its folder

_TO_SAVE, _TO_END = 40.0, 5.0  # seconds: for all of its commands to save and end, and for the rest to be gone
_LOOK = 0.1  # seconds between two looks at it


@dataclass(frozen=True)
class Study:
    """A script with the arguments of ``cifar10.sh``: the pictures' zip, the folder it owns, and ``cpu`` or ``gpu``."""

    script: Path
    pictures: Path
    folder: Path
    size: str

    @property
    def done(self) -> Path:
        """The file that is there once the script has come to its end."""
        return self.folder / "all-done"

    def progress(self) -> str:
        """What is there, in words."""
        found = ("base-*/done", "rates/*/done", "real-*/report.json", "own-*/report.json")
        bases, rates, *ablations = (len(list(self.folder.glob(pattern))) for pattern in found)
        return f"bases: {bases}, rates tried: {rates}, ablations: {sum(ablations)}"


def go_on(study: Study, *, left: Callable[[], float]) -> str:
    """Run ``study`` while there is time ``left`` (seconds), and say how far it is; it begins where it was stopped.

    What its commands print goes to ``log.txt`` in its folder.
    """
    if study.done.exists():
        return f"all there; {study.progress()}"
    if left() <= 0:
        return f"no time left; {study.progress()}: call it again to go on"
    study.folder.mkdir(parents=True, exist_ok=True)
    log = study.folder / "log.txt"
    words = ["bash", str(study.script), str(study.pictures.resolve()), str(study.folder.resolve()), study.size]
    with log.open("ab") as file:
        # A session of its own, so that all commands that it starts can be asked to end.
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env={**os.environ, "PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            while process.poll() is None and left() > 0:
                time.sleep(_LOOK)
        finally:
            stopped = process.returncode is None
            if stopped:
                end_all(process)
    if stopped:
        return f"stopped in time; {study.progress()}: call it again to go on"
    if process.returncode:
        lines = log.read_text(errors="replace").split("\n")
        return f"FAILED: {next((line for line in reversed(lines) if line.strip()), 'it said nothing')} ({log})"
    study.done.touch()
    return f"all there; {study.progress()}"


def end_all(process: subprocess.Popen[bytes]) -> None:
    """Ask all commands of ``process``'s session to save and end; those that are still there after a while are ended."""
    for number, seconds in ((signal.SIGTERM, _TO_SAVE), (signal.SIGKILL, _TO_END)):
        end = time.monotonic() + seconds
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < end:
                process.poll()  # or it stays as what has ended and was not asked for
                os.killpg(process.pid, 0)
                time.sleep(_LOOK)
        except ProcessLookupError:
            return
