"""What holds the files of a data set: a folder or a zip. Names are relative to it, with "/"."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from ..storage import PARTIAL, what_is
from .bounds import Bounds
from .zips import is_zip, open_zip, read_member

# How deep folders are searched: enough that PARENT/train/CLASS/image is reported as too deep, not as an empty folder.
_LEVELS = 4


class Entry(NamedTuple):
    """One file. Names of folders end in "/"."""

    name: str
    size: int  # bytes
    mark: int  # changes when its content does: of a file the time in ns, in a zip the CRC-32


class Folder:
    """The files of a folder, ``levels`` deep; ``wanted`` says of a file's name whether it is listed.

    A link that leads out of the folder is a DataError, unless ``bounds`` allow it.
    """

    marks_are_sums = False

    def __init__(self, path: Path, *, wanted: Callable[[str], bool], bounds: Bounds, levels: int = _LEVELS) -> None:
        self.path, self._wanted, self.bounds, self._levels = path, wanted, bounds, levels

    def entries(self) -> Iterator[Entry]:
        return self._walk(str(self.path), prefix="", level=1)

    def read(self, name: str) -> bytes:
        return self.bounds.read(self.path / name)

    def _walk(self, folder: str, *, prefix: str, level: int) -> Iterator[Entry]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir() and not is_ignored(entry.name):
                    self.bounds.check_link(entry.path, folder=self.path)
                    yield Entry(f"{prefix}{entry.name}/", 0, 0)
                    if level < self._levels:
                        yield from self._walk(entry.path, prefix=f"{prefix}{entry.name}/", level=level + 1)
                # A broken link, a FIFO and the like are kept: they are reported as unreadable, not left out silently.
                elif self._wanted(entry.name) and not entry.is_dir():
                    if entry.is_symlink():
                        self.bounds.check_link(entry.path, folder=self.path)
                    state = entry.stat() if entry.is_file() else None
                    yield Entry(prefix + entry.name, state.st_size if state else 0, state.st_mtime_ns if state else 0)


class Archive:
    """The files of a zip, never extracted. Each process opens the zip itself: a shared file position mixes up reads.

    Some tools of Windows write names with backslashes; ``slashes``: whether those count as "/".
    """

    marks_are_sums = True

    def __init__(self, path: Path, *, slashes: bool, bounds: Bounds, written: Mapping[str, str] | None = None) -> None:
        self.path, self._slashes, self.bounds = path, slashes, bounds
        self.written = dict(written or {})  # name with "/" -> as it is written in the zip, where that differs
        self._opened: tuple[int, zipfile.ZipFile] | None = None  # (process id, zip)

    def entries(self) -> Iterator[Entry]:
        with open_zip(self.path) as archive:
            for info in archive.infolist():
                name = info.filename
                if self._slashes and "\\" in name:
                    name = name.replace("\\", "/")
                    self.written[name] = info.filename
                yield Entry(name, info.file_size, info.CRC)

    def read(self, name: str) -> bytes:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_zip(self.path)
        return read_member(self._opened[1], self.written.get(name, name), bounds=self.bounds)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def open_container(path: Path, *, wanted: Callable[[str], bool], slashes: bool, bounds: Bounds) -> Folder | Archive:
    """The folder or zip at ``path``. Raises DataError when it is neither."""
    hint = "Give a folder of images, or a .zip of one."
    if path.is_dir():
        return Folder(path, wanted=wanted, bounds=bounds)
    if not path.exists():
        raise DataError(f"{path} does not exist", hint=hint)
    if (kind := what_is(path)) is not None:
        raise DataError(f"{path} is {kind}, neither a folder nor a file", hint=hint)
    if not is_zip(path):
        raise DataError(f"{path} is neither a folder nor a readable zip", hint=hint)
    return Archive(path, slashes=slashes, bounds=bounds)


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is never looked at."""
    return name.startswith(".") or name.endswith(PARTIAL) or name == "__MACOSX"
