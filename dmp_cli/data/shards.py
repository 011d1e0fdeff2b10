"""Webdataset shards: tar files whose members of one key are a sample, an image and perhaps its caption and class.

A plain tar can be read at any place, so shards are listed once, by their headers, and their images then read in any
order; nothing is unpacked. n images in k shards.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from .decoding import naming
from .packed_strings import PackedStrings
from .source import SUFFIXES, ImageSource

_SUFFIX = ".tar"
_CAPTIONS = ("txt", "json")  # extensions that hold a caption; of a JSON object its "text" or "caption"
_CLASS = "cls"
_REMOTE = re.compile(r"^([a-z][a-z0-9+]*:/|pipe:)")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COLUMNS = 6  # of a sample's row
_OPEN = 64  # shards that a process keeps open


class Part(NamedTuple):
    """Where a member's bytes are in its shard."""

    offset: int
    size: int


class _Sample(NamedTuple):
    name: str  # of the image member
    row: tuple[int, ...]  # offset and size of the image, of its caption, whether that is JSON, class; -1: there is none


class _OpenShard:
    """The number of an open file, closed when its last holder lets go.

    Closing it any earlier would let a thread that is about to read find another file under the same number.
    """

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class ShardImages(ImageSource):
    """The images of webdataset shards, shard after shard, in the order they lie there.

    A sample is what shares a key: a member's name up to the first dot of its last part. Its image is the member with an
    image's extension, its caption ``KEY.txt`` or ``KEY.json``, its class the number in ``KEY.cls``. Other members, and
    keys without an image, are passed over.

    Raises:
        DataError: a shard that is damaged or compressed, no image, two of one key, or a class on some samples only.
    """

    def __init__(self, path: Path, shards: list[Path]) -> None:
        self.path, self._shards = Path(path), shards
        self._opened: dict[int, _OpenShard] = {}
        self._lock = threading.Lock()
        digest = hashlib.sha256()
        names: list[str] = []
        tables: list[np.ndarray] = []  # a row a sample: a million of them as Python objects would take a gigabyte
        for shard in shards:
            with naming(str(shard)):
                found = _samples(shard)
            names += [sample.name for sample in found]
            tables.append(np.array([sample.row for sample in found], np.int64).reshape(-1, _COLUMNS))
            rows = (f"{s.name}\0{s.row[1]}\0{s.row[3]}\0{s.row[5]}\n" for s in found)  # not where they lie in the shard
            digest.update(f"{shard.name}\n{''.join(rows)}".encode("utf-8", "surrogateescape"))
        if not names:
            raise DataError(f"no images in {path}", hint=f"Known suffixes: {' '.join(sorted(SUFFIXES))}.")
        self.spans = np.cumsum([0, *map(len, tables)])  # (k + 1,)
        self.fingerprint = digest.hexdigest()
        self._names = PackedStrings(names)
        table = np.concatenate(tables)  # (n, _COLUMNS)
        self._images, self._captions, self._json = table[:, :2], table[:, 2:4], table[:, 4] == 1
        self.labels, self.classes = self._classes(table[:, 5])

    def _classes(self, labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
        if (labels < 0).all():
            return np.zeros(len(labels), np.int64), []
        if (labels < 0).any():
            raise DataError(f"{self.name(int(labels.argmin()))} has no .{_CLASS} beside it, and others have")
        return labels.copy(), [str(label) for label in range(int(labels.max()) + 1)]

    @property
    def captioned(self) -> np.ndarray:
        return self._captions[:, 0] >= 0

    def caption(self, index: int) -> str:
        if self._captions[index, 0] < 0:
            raise DataError(f"{self.name(index)} has no caption")
        with naming(f"the caption of {self.name(index)}"):
            text = self._bytes(index, Part(*self._captions[index])).decode("utf-8-sig")
            if not self._json[index]:
                return text.strip()
            content = json.loads(text)
            found = content.get("text") or content.get("caption") if isinstance(content, dict) else None
            if not isinstance(found, str):
                raise ValueError('a JSON caption is an object with "text" or "caption"')
            return found.strip()

    def name(self, index: int) -> str:
        return f"{self._shards[self._shard(index)]}/{self._names[index]}".encode("utf-8", "backslashreplace").decode()

    def read(self, index: int) -> bytes:
        with naming(self.name(index)):
            return self._bytes(index, Part(*self._images[index]))

    def _shard(self, index: int) -> int:
        assert self.spans is not None
        return int(np.searchsorted(self.spans, index, side="right")) - 1

    def _bytes(self, index: int, part: Part) -> bytes:
        shard = self._open(self._shard(index))
        # without a position of the file, which processes made by a fork, and threads, would share
        data = os.pread(shard.number, part.size, part.offset)
        if len(data) < part.size:
            raise ValueError("the shard is shorter than when it was listed")
        return data

    def _open(self, number: int) -> _OpenShard:
        """A shard, which stays open for as long as anybody holds it."""
        with self._lock:
            if number not in self._opened:
                if len(self._opened) >= _OPEN:
                    self._opened.pop(next(iter(self._opened)))
                self._opened[number] = _OpenShard(self._shards[number])
            return self._opened[number]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _opened={}, _lock=threading.Lock())


def find_shards(path: Path) -> list[Path]:
    """The shards that ``path`` names: a .tar, a folder of them, or a pattern with ``*`` or ``{000..146}``; else none.

    Raises:
        DataError: a pattern that nothing matches, a shard of a range that is missing, or a remote address.
    """
    text = str(path)
    if _REMOTE.match(text):
        raise DataError(f"{text} is not on this machine", hint="Shards are read where they lie: download them first.")
    if path.is_dir():
        found = sorted(inner for inner in path.iterdir() if inner.suffix == _SUFFIX and not inner.name.startswith("."))
        return found if found and not _has_images(path) else []
    if path.is_file():
        return [path] if path.suffix == _SUFFIX else []
    if not _RANGE.search(text) and not glob.has_magic(text):
        return []
    found = [Path(name) for pattern in _expand(text) for name in sorted(glob.glob(pattern)) or [pattern]]
    missing = [shard for shard in found if not shard.is_file()]
    if missing:
        raise DataError(f"there is no {missing[0]}" + (f", and no {len(missing) - 1} others" if missing[1:] else ""))
    return found


def _has_images(folder: Path) -> bool:
    return any(inner.suffix.lower() in SUFFIXES for inner in folder.iterdir())


def _expand(pattern: str) -> Iterator[str]:
    """``a{08..10}`` to a08, a09, a10; every range in turn."""
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match[1], match[2]
    for number in range(int(first), int(last) + 1):
        yield from _expand(f"{pattern[: match.start()]}{number:0{len(first)}d}{pattern[match.end() :]}")


def _samples(shard: Path) -> list[_Sample]:
    """The samples of one shard that have an image, in its order."""
    keys: dict[str, dict[str, tuple[str, Part]]] = {}  # key -> extension -> (member, place)
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would keep every header it has met
                key, extension = _split(member.name)
                if not member.isreg() or not key or not extension:
                    continue
                if extension in keys.setdefault(key, {}):
                    raise DataError(f"{shard} holds two members {member.name}")
                keys[key][extension] = member.name, Part(member.offset_data, member.size)
                if extension == _CLASS:
                    labels[key] = _label(archive, member, shard)
    except tarfile.ReadError as error:
        raise DataError(f"cannot read {shard}: {error}", hint="Shards are plain tar files, not compressed.") from error
    made = (_sample(shard, parts, labels.get(key)) for key, parts in keys.items())
    return [sample for sample in made if sample is not None]


def _sample(shard: Path, parts: dict[str, tuple[str, Part]], label: int | None) -> _Sample | None:
    images = [extension for extension in parts if f".{extension}" in SUFFIXES]
    if not images:
        return None
    if len(images) > 1:
        names = " and ".join(parts[extension][0] for extension in images)
        raise DataError(f"{shard} holds two images of one key: {names}")
    captions = [extension for extension in _CAPTIONS if extension in parts]
    name, image = parts[images[0]]
    caption = parts[captions[0]][1] if captions else Part(-1, -1)
    return _Sample(name, (*image, *caption, int(captions[:1] == ["json"]), -1 if label is None else label))


def _split(name: str) -> tuple[str, str]:
    """``a/b.c.jpg`` to key ``a/b`` and extension ``c.jpg``, lower case."""
    folder, _, file = name.removeprefix("./").rpartition("/")
    stem, _, extension = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem) if stem else "", extension.lower()


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> int:
    file = archive.extractfile(member)
    text = file.read(32) if file else b""
    try:
        label = int(text)
    except ValueError:
        label = -1
    if label < 0:
        raise DataError(f"{shard}/{member.name} is {text[:16]!r}, not the number of a class")
    return label
