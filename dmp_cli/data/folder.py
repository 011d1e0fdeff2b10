"""Finding images and their captions in a folder, a zip or shards; flat, or with one sub-folder per class."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..storage import PARTIAL
from .captions import BESIDE, METADATA, Captions
from .decoding import naming
from .packed_strings import PackedStrings
from .shard_paths import find_shards
from .shards import ShardImages
from .source import SUFFIXES, ImageSource

_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
# How deep folders are searched: enough that PARENT/train/CLASS/image is reported as too deep, not as an empty folder.
_LEVELS = 4
_LAYOUT = "Images lie either directly in the folder (or zip), or in one sub-folder per class."


class FolderImages(ImageSource):
    """The images of one folder or zip, flat or with one sub-folder per class. A zip of a folder gives the same images.

    Each worker process opens a zip when it reads from it first.
    """

    def __init__(
        self, container: _Folder | _Archive, *, prefix: str, sizes: Mapping[str, int], notes: Mapping[str, int]
    ) -> None:
        names = sorted(sizes, key=lambda name: name.split("/"))  # by class, then file: "/" is no letter
        folders = [name.rpartition("/")[0] for name in names]
        position = {folder: label for label, folder in enumerate(sorted(set(folders)))}
        self.path = container.path
        self.classes = [folder for folder in position if folder]
        self.labels = np.array([position[folder] for folder in folders], np.int64)  # (n,)
        self._container = container
        self._prefix = prefix
        self._names = PackedStrings(names)
        self._captions = Captions(names, notes=notes, place=f"{self.path}/{prefix}".rstrip("/"), read=self._read_note)
        # a zero byte ends the name, because no file name contains one
        rows = (b"%s\0%d\n" % (name.encode("utf-8", "surrogateescape"), sizes[name]) for name in names)
        self.fingerprint = hashlib.sha256(b"".join(rows) + self._captions.signature).hexdigest()

    @property
    def captioned(self) -> np.ndarray:
        return self._captions.present

    def caption(self, index: int) -> str:
        if not self._captions.present[index]:
            raise DataError(f"{self.name(index)} has no caption")
        return self._captions.text(index)

    def name(self, index: int) -> str:
        return f"{self.path}/{self._prefix}{self._relative(index)}".encode("utf-8", "backslashreplace").decode()

    def read(self, index: int) -> bytes:
        with naming(self.name(index)):
            return self._container.read(self._prefix + self._relative(index))

    def _relative(self, index: int) -> str:
        return self._names[index]

    def _read_note(self, name: str) -> bytes:
        with naming(f"{self.path}/{self._prefix}{name}"):
            return self._container.read(self._prefix + name)


def find_images(path: str | Path) -> ImageSource:
    """List the images of a folder or .zip, flat or with one sub-folder per class (a position in the sorted names).

    ``path`` may also name webdataset shards: a .tar, a folder of them, or a pattern such as ``train-{000..146}.tar``;
    see :mod:`shards`. Dotfiles, ``*.partial``, ``__MACOSX`` and suffixes that are not in ``SUFFIXES`` are passed over.
    So is a single folder around the class folders.

    Raises:
        DataError: ``path`` is missing, unreadable or empty; images lie both directly in it and in sub-folders, or
            deeper than that; a class folder is empty; or the sub-folders are ``train`` and ``test``.
    """
    path = Path(path)
    shards = find_shards(path)
    if shards:
        return ShardImages(path, shards)
    with naming(str(path)):
        container = _open(path)
        sizes, folders, notes = _listing(container)
    if not sizes:
        raise DataError(f"no images in {path}", hint=f"{_LAYOUT} Known suffixes: {' '.join(sorted(SUFFIXES))}.")
    prefix = _wrapping(list(sizes))
    sizes = {name.removeprefix(prefix): size for name, size in sizes.items()}
    folders = {name.removeprefix(prefix) for name in folders if name.startswith(prefix)}
    _check_layout(f"{path}/{prefix}".rstrip("/"), list(sizes), folders)
    notes = {name.removeprefix(prefix): size for name, size in notes.items() if name.startswith(prefix)}
    return FolderImages(container, prefix=prefix, sizes=sizes, notes=notes)


class _Folder:
    """The files of a folder. Names are relative to it, with "/"; names of folders end in "/"."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> Iterator[tuple[str, int]]:
        return _walk(str(self.path), prefix="", level=1)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Archive:
    """The files of a zip, never extracted. Each process opens the zip itself: a shared file position mixes up reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None  # (process id, zip)

    def entries(self) -> Iterator[tuple[str, int]]:
        with zipfile.ZipFile(self.path) as archive:
            yield from ((info.filename, info.file_size) for info in archive.infolist())

    def read(self, name: str) -> bytes:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1].read(name)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}


def _open(path: Path) -> _Folder | _Archive:
    hint = "Give a folder of images, or a .zip of one."
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise DataError(f"{path} does not exist", hint=hint)
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is neither a folder nor a readable zip", hint=hint)
    return _Archive(path)


def _walk(folder: str, *, prefix: str, level: int) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and not _ignored(entry.name):
                yield f"{prefix}{entry.name}/", 0
                if level < _LEVELS:
                    yield from _walk(entry.path, prefix=f"{prefix}{entry.name}/", level=level + 1)
            # A broken link is kept, so that it is reported as unreadable instead of being left out silently.
            elif (_is_image(entry.name) or _is_note(entry.name)) and (entry.is_file() or entry.is_symlink()):
                yield prefix + entry.name, entry.stat().st_size if entry.is_file() else 0


def _listing(container: _Folder | _Archive) -> tuple[dict[str, int], set[str], dict[str, int]]:
    """Images with their sizes in bytes, all folder names, and files that may hold captions with their sizes."""
    sizes: dict[str, int] = {}
    notes: dict[str, int] = {}
    folders: set[str] = set()
    for name, size in container.entries():
        folder, _, file = name.rpartition("/")
        if any(_ignored(part) for part in folder.split("/")):
            continue
        if folder:
            folders.add(folder)
        if _is_image(file):
            sizes[name] = size
        elif _is_note(file):
            notes[name] = size
    return sizes, folders, notes


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.endswith(PARTIAL) or name == "__MACOSX"


def _is_image(name: str) -> bool:
    return not _ignored(name) and os.path.splitext(name)[1].lower() in SUFFIXES


def _is_note(name: str) -> bool:
    return not _ignored(name) and (name == METADATA or name.endswith(BESIDE))


def _wrapping(names: list[str]) -> str:
    """The single folder, with its "/", around all class folders, which zips often have; else an empty string."""
    prefix = ""
    while True:
        rest = [name.removeprefix(prefix) for name in names]
        tops = {name.partition("/")[0] for name in rest}
        if len(tops) > 1 or any(name.count("/") < 2 for name in rest):
            return prefix
        prefix += f"{tops.pop()}/"


def _check_layout(path: str, names: list[str], folders: set[str]) -> None:
    flat = [name for name in names if "/" not in name]
    deep = [name for name in names if name.count("/") > 1]
    tops = sorted({name.partition("/")[0] for name in names if "/" in name})
    if not flat and len(tops) > 1 and all(top.lower() in _SPLITS for top in tops):
        part = f"{path}/{max(tops, key=lambda top: top.lower().startswith('train'))}"
        hint = f"Give one of them alone, as {part}." if os.path.isdir(part) else "Make a zip of one of them alone."
        raise DataError(f"{path} holds {' and '.join(tops)}, not classes", hint=hint)
    if flat and tops:
        inner = next(name for name in names if "/" in name)
        raise DataError(f"{path} holds images both directly ({flat[0]}) and in sub-folders ({inner})", hint=_LAYOUT)
    if deep:
        raise DataError(f"images too deep in {path}: {deep[0]}", hint=f"{_LAYOUT} Give the folder right above them.")
    empty = sorted({name for name in folders if "/" not in name} - set(tops)) if tops else []
    if empty:
        raise DataError(f"class folder {path}/{empty[0]} holds no images", hint="Remove it: it would count as a class.")
