"""Webdataset shards: tar files in which the members with one key are a sample: an image, its caption and its class.

A plain tar can be read at any offset. So the headers of all shards are listed once, and then images are read in any
order, without unpacking. n images in k shards.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..runtime import counting
from ..storage import decode_text, parse_json
from .bounds import BOUNDS, Bounds
from .classes import ClassNames, check_folders
from .decoding import naming
from .kinds import RULES, count_kinds, describe_kinds, read_suffixes
from .metadata import texts_of
from .packed_strings import PackedStrings
from .shard_files import LocalShard, OpenShard, ShardFile
from .shard_members import Members, Part
from .source import ImageSource, Stamp

_COLUMNS = 6  # in the table of samples, see Sample
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
        digest = hashlib.sha256()
        names: list[str] = []
        passed_over: list[str] = []
        tables: list[np.ndarray] = []  # one row per sample: a million samples as Python objects would take a gigabyte
        for shard, (found, others) in self._list_all():
            names += [sample.name for sample in found]
            passed_over += others
            tables.append(np.array([sample.row for sample in found], np.int64).reshape(-1, _COLUMNS))
            rows = (f"{s.name}\0{s.row[1]}\0{s.row[3]}\0{s.row[5]}\n" for s in found)  # no offsets: they may change
            digest.update(f"{shard.name}\n{''.join(rows)}".encode("utf-8", "surrogateescape"))
        self.passed_over = count_kinds(passed_over)
        if not names:
            more = f"; {describe_kinds(self.passed_over)}, such as {passed_over[0]}" if passed_over else ""
            known = f"Known suffixes: {' '.join(sorted(read_suffixes(rules)))}."
            raise DataError(f"no images in {path}{more}", hint=known)
        self._times = [shard.time() for shard in self._shards]
        self.spans = np.cumsum([0, *map(len, tables)])  # (k + 1,)
        self.fingerprint = digest.hexdigest()
        self._names = PackedStrings(names)
        table = np.concatenate(tables)  # (n, _COLUMNS)
        self._images, self._captions, self._json = table[:, :2], table[:, 2:4], table[:, 4] == 1
        self.labels, self.classes = self._classes(table[:, 5], names, named)

    def _list_all(self) -> Iterator[tuple[ShardFile, Members]]:
        """Each shard with its members; whoever watches sees how many are listed."""
        with counting(f"list {self.path.name}", len(self._shards)) as count:
            for number, shard in enumerate(self._shards, start=1):
                with naming(str(shard)):
                    members = shard.members(self.rules)
                count(number)
                yield shard, members

    def _classes(self, labels: np.ndarray, names: list[str], named: ClassNames | None) -> tuple[np.ndarray, list[str]]:
        if (labels < 0).all():
            return np.zeros(len(labels), np.int64), []
        if (labels < 0).any():
            raise DataError(f"{self.name(int(labels.argmin()))} has no .cls beside it, but other images have")
        count = int(labels.max()) + 1
        if named is not None and len(named.names) < count:
            raise DataError(f"{named.place} names {len(named.names)} classes, but {self.path} has a class {count - 1}")
        folders = _folders(names, labels) if self.rules > 1 else {}
        if folders:
            check_folders(folders, named, path=self.path)
        if named is not None:
            return labels.copy(), list(named.names)
        told = {label: folder for folder, label in folders.items()}
        return labels.copy(), [told.get(label, str(label)) for label in range(count)]

    @property
    def captioned(self) -> np.ndarray:
        return self._captions[:, 0] >= 0

    def captions(self, index: int) -> list[str]:
        if self._captions[index, 0] < 0:
            raise DataError(f"{self.name(index)} has no caption")
        place = f"the caption of {self.name(index)}"
        with naming(place):
            part = Part(*self._captions[index].tolist())
            self._bounds.check_note(part.size)
            text = decode_text(self._bytes(index, part), name=place, kind=DataError)
            if not self._json[index]:
                return [text.strip()]
            content = parse_json(text, name=place, kind=DataError)
            found = texts_of(content, place=place) if isinstance(content, dict) else []
            if not found:
                raise ValueError('a JSON caption is an object with "text" or "caption"')
            return found

    def name(self, index: int) -> str:
        return f"{self._shards[self._shard(index)]}/{self._names[index]}".encode("utf-8", "backslashreplace").decode()

    def read(self, index: int) -> bytes:
        with naming(self.name(index)):
            part = Part(*self._images[index].tolist())
            self._bounds.check_size(part.size)
            return self._bytes(index, part)

    def stamp(self, index: int) -> Stamp:
        return Stamp(int(self._images[index, 1]), self._times[self._shard(index)])

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


def _folders(names: list[str], labels: np.ndarray) -> dict[str, int]:
    """Folder in the members' names -> its class, where folders and classes belong together one to one; else none."""
    folders = (name.rpartition("/")[0].rpartition("/")[2] for name in names)
    pairs = set(zip(folders, labels.tolist(), strict=True))
    found = dict(pairs)
    return found if len(pairs) == len(found) == len(set(found.values())) and all(found) else {}
