"""Webdataset shards: tar files in which the members with one key are a sample: an image, its caption and its class.

A plain tar can be read at any offset. So the headers of all shards are listed once, and then images are read in any
order, without unpacking. n images in k shards.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from .decoding import naming
from .packed_strings import PackedStrings
from .source import SUFFIXES, ImageSource

_CAPTIONS = ("txt", "json")  # extensions that hold a caption; of a JSON object its "text" or "caption"
_CLASS = "cls"
_COLUMNS = 6  # in the table of samples, see _Sample
_OPEN = 64  # shards that a process keeps open


class Part(NamedTuple):
    """Where the bytes of a member are in its shard."""

    offset: int
    size: int


class _Sample(NamedTuple):
    name: str  # of the image member
    row: tuple[int, ...]  # image: offset, size; caption: offset, size, whether it is JSON; class. -1: there is none


class _OpenShard:
    """An open file's descriptor, closed when no reference to this object is left.

    If it were closed earlier, a thread that is about to read could find another file under the same descriptor.
    """

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class ShardImages(ImageSource):
    """The images of webdataset shards, shard after shard, in the order of their members.

    Members with the same key are one sample; the key is a member's name up to the first dot of its last part. The image
    is the member with the extension of an image, the caption ``KEY.txt`` or ``KEY.json``, the class the number in
    ``KEY.cls``. Other members, and keys without an image, are passed over.

    Raises:
        DataError: a shard is damaged or compressed, there is no image, a key has two images, or only some have a class.
    """

    def __init__(self, path: Path, shards: list[Path]) -> None:
        self.path, self._shards = Path(path), shards
        self._opened: dict[int, _OpenShard] = {}
        self._lock = threading.Lock()
        digest = hashlib.sha256()
        names: list[str] = []
        tables: list[np.ndarray] = []  # one row per sample: a million samples as Python objects would take a gigabyte
        for shard in shards:
            with naming(str(shard)):
                found = _samples(shard)
            names += [sample.name for sample in found]
            tables.append(np.array([sample.row for sample in found], np.int64).reshape(-1, _COLUMNS))
            rows = (f"{s.name}\0{s.row[1]}\0{s.row[3]}\0{s.row[5]}\n" for s in found)  # no offsets: they may change
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
            raise DataError(f"{self.name(int(labels.argmin()))} has no .{_CLASS} beside it, but other images have")
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
        # pread uses no file position, which forked processes and threads would share
        data = os.pread(shard.number, part.size, part.offset)
        if len(data) < part.size:
            raise ValueError("the shard is shorter than when it was listed")
        return data

    def _open(self, number: int) -> _OpenShard:
        """The shard ``number``, which stays open as long as a reference to it exists."""
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


def _samples(shard: Path) -> list[_Sample]:
    """The samples of one shard that have an image, in the order of the shard."""
    keys: dict[str, dict[str, tuple[str, Part]]] = {}  # key -> extension -> (member, place)
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # the list would keep every header
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
    """Split ``a/b.c.jpg`` into the key ``a/b`` and the extension ``c.jpg``, in lower case."""
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
