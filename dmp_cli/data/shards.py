"""Webdataset shards: tar files in which the members with one key are a sample: an image, its caption and its class.

A plain tar can be read at any offset. So the headers of all shards are listed once, and then images are read in any
order, without unpacking. n images in k shards.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..storage import decode_text, parse_json
from .bounds import BOUNDS, Bounds
from .classes import ClassNames, check_folders
from .decoding import naming
from .kinds import RULES, describe_kinds, read_suffixes
from .metadata import texts_of
from .shard_files import LocalShard, OpenShard, ShardFile
from .shard_index import find_table
from .shard_members import Part
from .source import ImageSource, Stamp

_OPEN = 64  # shards that a process keeps open


class ShardImages(ImageSource):
    """The images of webdataset shards, shard after shard, in the order of their members.

    Members with the same key are one sample, see :mod:`shard_members`. The image is the member with the extension of an
    image, the caption ``KEY.txt`` or ``KEY.json``, the class the number in ``KEY.cls``. Other members, and keys without
    an image, are passed over.

    Raises:
        DataError: a shard is damaged or compressed, there is no image, a key has two images, or only some have a class;
            or classes are numbered otherwise than ``named``, or the same class folders, would be.
    """

    def __init__(
        self,
        path: Path,
        shards: Sequence[Path | ShardFile],
        *,
        rules: int = RULES,
        named: ClassNames | None = None,
        bounds: Bounds = BOUNDS,
    ) -> None:
        self.path, self.rules, self._bounds = Path(path), rules, bounds
        self._shards = [LocalShard(shard) if isinstance(shard, Path) else shard for shard in shards]
        self._opened: dict[int, OpenShard] = {}
        self._lock = threading.Lock()
        self._table = find_table(self.path, self._shards, rules=rules)
        told = self._table.summary
        self.passed_over = dict(told.passed_over)
        if not told.spans[-1]:
            more = f"; {describe_kinds(self.passed_over)}, such as {told.passed_name}" if told.passed_name else ""
            known = f"Known suffixes: {' '.join(sorted(read_suffixes(rules)))}."
            raise DataError(f"no images in {path}{more}", hint=known)
        self._times = [shard.time() for shard in self._shards]
        self.spans = np.array(told.spans, np.int64)  # (k + 1,)
        self.fingerprint = told.fingerprint
        self.labels, self.classes = self._classes(self._table.labels, told.folders, named)

    def _classes(
        self, labels: np.ndarray, folders: dict[str, int], named: ClassNames | None
    ) -> tuple[np.ndarray, list[str]]:
        if (labels < 0).all():
            return np.zeros(len(labels), np.int64), []
        if (labels < 0).any():
            raise DataError(f"{self.name(int(labels.argmin()))} has no .cls beside it, but other images have")
        count = int(labels.max()) + 1
        if named is not None and len(named.names) < count:
            raise DataError(f"{named.place} names {len(named.names)} classes, but {self.path} has a class {count - 1}")
        if folders:
            check_folders(folders, named, path=self.path)
        if named is not None:
            return np.array(labels), list(named.names)
        told = {label: folder for folder, label in folders.items()}
        return np.array(labels), [told.get(label, str(label)) for label in range(count)]

    @property
    def captioned(self) -> np.ndarray:
        return np.asarray(self._table.captions[:, 0] >= 0)

    def captions(self, index: int) -> list[str]:
        if self._table.captions[index, 0] < 0:
            raise DataError(f"{self.name(index)} has no caption")
        place = f"the caption of {self.name(index)}"
        with naming(place):
            part = Part(*self._table.captions[index].tolist())
            self._bounds.check_note(part.size)
            text = decode_text(self._bytes(index, part), name=place, kind=DataError)
            if not self._table.is_json[index]:
                return [text.strip()]
            content = parse_json(text, name=place, kind=DataError)
            found = texts_of(content, place=place) if isinstance(content, dict) else []
            if not found:
                raise ValueError('a JSON caption is an object with "text" or "caption"')
            return found

    def name(self, index: int) -> str:
        return f"{self._shards[self._shard(index)]}/{self._table.names[index]}".encode(
            "utf-8", "backslashreplace"
        ).decode()

    def read(self, index: int) -> bytes:
        with naming(self.name(index)):
            part = Part(*self._table.images[index].tolist())
            self._bounds.check_size(part.size)
            return self._bytes(index, part)

    def stamp(self, index: int) -> Stamp:
        return Stamp(int(self._table.images[index, 1]), self._times[self._shard(index)])

    def _shard(self, index: int) -> int:
        assert self.spans is not None
        return int(np.searchsorted(self.spans, index, side="right")) - 1

    def _bytes(self, index: int, part: Part) -> bytes:
        shard = self._open(self._shard(index))
        data = shard.read(part.offset, part.size)
        if len(data) < part.size:
            raise ValueError("the shard is shorter than when it was listed")
        return data

    def _open(self, number: int) -> OpenShard:
        """The shard ``number``, which stays open as long as a reference to it exists."""
        with self._lock:
            if number not in self._opened:
                if len(self._opened) >= _OPEN:
                    self._opened.pop(next(iter(self._opened)))
                self._opened[number] = self._shards[number].open()
            return self._opened[number]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _opened={}, _lock=threading.Lock())
