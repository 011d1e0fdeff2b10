"""Opening regular files only: a FIFO is waited for without end, and a device may do anything."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def what_is(path: str | Path) -> str | None:
    """What stands at ``path`` that is no regular file, such as "a FIFO"; None: a regular file, or nothing."""
    try:
        return _name(os.stat(path).st_mode)
    except OSError:
        return None


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file to read its bytes. Raises OSError, at once, when it is no regular file, or cannot be opened."""
    _check(os.stat(path).st_mode, path)  # before it is opened, which a device may notice
    number = os.open(path, _FLAGS)  # another file may have come to this place meanwhile
    try:
        _check(os.fstat(number).st_mode, path)
        return open(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: str | Path) -> bytes:
    """The bytes of a file; raises as :func:`open_regular`."""
    with open_regular(path) as file:
        return file.read()


def _check(mode: int, path: str | Path) -> None:
    kind = _name(mode)
    if kind is not None:
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, f"it is {kind}, not a file", str(path))


def _name(mode: int) -> str | None:
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")
