"""How much may be read into memory: no file decides that alone."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

import psutil

from ..errors import ConfigError, DMPError
from .regular import open_regular, what_is

_OF_CONTAINERS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_PIECE = 1 << 20  # bytes that are read at once
_OF_SHELLS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
SMALL = 64 << 20  # bytes of the largest config, record or manifest that is read


@functools.cache
def physical_memory() -> int:
    """Bytes of memory that this process may use at most: the machine's, or its container's."""
    known = [int(psutil.virtual_memory().total)]
    for name in _OF_CONTAINERS:
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
            known.append(int(Path(name).read_text()))
    return min(size for size in known if size > 0)


def in_bytes(size: int) -> str:
    """A size as people write it: ``400 MB``."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{size} bytes" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError


def check_memory(size: int, *, name: str, kind: type[DMPError]) -> None:
    """Raise ``kind`` if ``size`` bytes, as a file claims of itself, are more than this machine has."""
    if size > physical_memory():
        raise kind(
            f"{name} would take {in_bytes(size)} of memory, and this machine has {in_bytes(physical_memory())}",
            hint="It may be damaged or forged. If it is not, a larger machine is needed.",
        )


def check_file(
    path: Path, *, name: str | None = None, kind: type[DMPError] = ConfigError, hint: str | None = None
) -> os.stat_result:
    """What the system says of ``path``. Raises ``kind`` if it is missing, or no regular file: those may never end."""
    told = name or str(path)
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise _cannot_read(told, error, kind, hint) from error
    if (what := what_is(path)) is not None:
        raise kind(f"{told} is {what}, not a file", hint=hint)
    return state


def check_pipe(
    path: Path, *, name: str | None = None, kind: type[DMPError] = ConfigError, hint: str | None = None
) -> os.stat_result | None:
    """Like :func:`check_file`, but a shell's pipe, such as ``<(command)``, passes too; then the result is None."""
    if os.path.abspath(path).startswith(_OF_SHELLS):
        return None
    return check_file(path, name=name, kind=kind, hint=hint)


def read_bounded(
    path: Path,
    *,
    name: str | None = None,
    kind: type[DMPError] = ConfigError,
    limit: int = SMALL,
    regular: bool = True,
    hint: str | None = None,
) -> bytes:
    """The bytes of a file that is not larger than ``limit``. Its size is looked at before it is read.

    Args:
        name: what messages call it; None: its path.
        regular: whether the pipes of a shell are refused too, such as ``<(command)``.
        hint: what to do where it cannot be read.

    Raises:
        DMPError: of ``kind``: it is missing, unreadable, too large or no regular file.
    """
    told = name or str(path)
    state = (check_file if regular else check_pipe)(path, name=name, kind=kind, hint=hint)
    if state is not None and state.st_size > limit:
        raise _too_large(told, limit, kind, hint)
    data = bytearray()
    try:
        with open_regular(path) if state is not None else open(path, "rb") as file:
            # In pieces: a single call takes memory for as many bytes as it is asked for, before it reads one.
            while len(data) <= limit and (piece := file.read1(_PIECE)):
                data += piece
    except (OSError, ValueError) as error:
        raise _cannot_read(told, error, kind, hint) from error
    if len(data) > limit:
        raise _too_large(told, limit, kind, hint)
    return bytes(data)


def holds(path: Path, data: bytes) -> bool:
    """Whether ``path`` is a file of exactly these bytes. One of another size is not read."""
    if not path.is_file() or path.stat().st_size != len(data):
        return False
    with open_regular(path) as file:
        return file.read(len(data)) == data


def _cannot_read(told: str, error: Exception, kind: type[DMPError], hint: str | None) -> DMPError:
    reason = error.strerror if isinstance(error, OSError) else None
    return kind(f"cannot read {told}: {reason or error}", hint=hint)


def _too_large(told: str, limit: int, kind: type[DMPError], hint: str | None) -> DMPError:
    return kind(f"{told} is larger than {in_bytes(limit)}, which no such file is", hint=hint)
