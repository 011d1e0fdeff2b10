"""A process that ends, as by SIGTERM, when the one that started it is gone, however that ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import MutableMapping

_TIED = "DMP_TIED_TO_STDIN"  # set for a process whose standard input is a pipe that its parent holds open


def tied(environment: MutableMapping[str, str]) -> None:
    """Ask in the environment of a new process, whose standard input is a pipe, that it ends with this one."""
    environment[_TIED] = "1"


def hold_lifeline() -> None:
    """Where this process was asked to: watch the pipe, and ask for the end when it is closed."""
    if os.environ.pop(_TIED, None):  # processes that this one starts are not asked
        threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def _watch() -> None:
    asked = False  # the parent writes something when it asks for the end itself
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            asked = True
    if not asked:
        os.kill(os.getpid(), signal.SIGTERM)


def ask_to_end(child: subprocess.Popen[bytes]) -> None:
    """Ask a tied process for the end, as by SIGTERM, once: losing its parent asks it no second time."""
    assert child.stdin is not None
    with contextlib.suppress(OSError):
        child.stdin.write(b".")
        child.stdin.flush()
    child.terminate()
