"""Names of half-written files, and their removal.

What is written to ``NAME`` is first ``.NAME.HOST-PID.partial`` beside it: two processes never write the same one, and
what a killed process left is told from what a live one is writing. Earlier versions wrote ``.NAME.partial``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import psutil

PARTIAL = ".partial"
_LONGEST = 255  # bytes of a file's name, on all common file systems
_NAME = re.compile(rf"\.?(?P<name>.+?)(?:\.(?P<host>[A-Za-z0-9_-]+)-(?P<pid>\d+))?{re.escape(PARTIAL)}")


def host_name() -> str:
    """The name of this machine, in letters that any file system takes."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", socket.gethostname())[:64] or "host"


def partial_of(path: Path) -> Path:
    """Where this process writes what will be ``path``."""
    ending = f".{host_name()}-{os.getpid()}{PARTIAL}"
    name = path.name
    if len(f".{name}{ending}".encode("utf-8", "surrogateescape")) > _LONGEST >= len(os.fsencode(name)):
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return path.parent / f".{name}{ending}"


def whole_name(partial: str) -> str | None:
    """The name of the file that ``partial`` would have become; None: it is no partial file."""
    match = _NAME.fullmatch(partial)
    return None if match is None else match["name"]


def is_abandoned(partial: str) -> bool:
    """Whether the process that wrote ``partial`` is known to be gone: it ran here, or was of an earlier version."""
    match = _NAME.fullmatch(partial)
    if match is None or match["host"] is None:
        return match is not None
    return match["host"] == host_name() and not psutil.pid_exists(int(match["pid"]))


def remove_abandoned(path: Path) -> None:
    """Remove what processes that are gone left half-written of ``path``, which this process is about to write."""
    with contextlib.suppress(OSError):
        remove_partials(path.parent, wanted=lambda name: whole_name(name) == path.name and is_abandoned(name))


def remove_partials(folder: Path, *, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Remove partial files and folders directly in ``folder`` whose name is ``wanted``.

    Without ``wanted``, all of them: then no other process may be writing there.
    """
    for entry in Path(folder).glob(f"*{PARTIAL}"):
        if not wanted(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
