"""What holds the files of a data set: a folder or a zip. Names are relative to it, with "/"."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from ..storage import PARTIAL

# How deep folders are searched: enough that PARENT/train/CLASS/image is reported as too deep, not as an empty folder.
_LEVELS = 4


class Entry(NamedTuple):
    """One file. Names of folders end in "/"."""

    name: str
    size: int  # bytes
    mark: int  # changes when its content does: of a file the time in ns, in a zip the CRC-32


class Folder:
    """The files of a folder; ``wanted`` says of a file's name whether it is listed."""

    marks_are_sums = False

    def __init__(self, path: Path, *, wanted: Callable[[str], bool]) -> None:
        self.path, self._wanted = path, wanted

    def entries(self) -> Iterator[Entry]:
        return self._walk(str(self.path), prefix="", level=1)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def _walk(self, folder: str, *, prefix: str, level: int) -> Iterator[Entry]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir() and not is_ignored(entry.name):
                    yield Entry(f"{prefix}{entry.name}/", 0, 0)
                    if level < _LEVELS:
                        yield from self._walk(entry.path, prefix=f"{prefix}{entry.name}/", level=level + 1)
                # A broken link is kept, so that it is reported as unreadable instead of being left out silently.
                elif self._wanted(entry.name) and (entry.is_file() or entry.is_symlink()):
                    state = entry.stat() if entry.is_file() else None
                    yield Entry(prefix + entry.name, state.st_size if state else 0, state.st_mtime_ns if state else 0)


class Archive:
    """The files of a zip, never extracted. Each process opens the zip itself: a shared file position mixes up reads.

    Some tools of Windows write names with backslashes; ``slashes``: whether those count as "/".
    """

    marks_are_sums = True

    def __init__(self, path: Path, *, slashes: bool) -> None:
        self.path, self._slashes = path, slashes
        self._written: dict[str, str] = {}  # name with "/" -> as it is written in the zip, where that differs
        self._opened: tuple[int, zipfile.ZipFile] | None = None  # (process id, zip)

    def entries(self) -> Iterator[Entry]:
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                name = info.filename
                if self._slashes and "\\" in name:
                    name = name.replace("\\", "/")
                    self._written[name] = info.filename
                yield Entry(name, info.file_size, info.CRC)

    def read(self, name: str) -> bytes:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1].read(self._written.get(name, name))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def open_container(path: Path, *, wanted: Callable[[str], bool], slashes: bool) -> Folder | Archive:
    """The folder or zip at ``path``. Raises DataError when it is neither."""
    hint = "Give a folder of images, or a .zip of one."
    if path.is_dir():
        return Folder(path, wanted=wanted)
    if not path.exists():
        raise DataError(f"{path} does not exist", hint=hint)
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is neither a folder nor a readable zip", hint=hint)
    return Archive(path, slashes=slashes)


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is never looked at."""
    return name.startswith(".") or name.endswith(PARTIAL) or name == "__MACOSX"
