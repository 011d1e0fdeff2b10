"""What webdataset shards hold, as columns: a million samples as Python objects would take a gigabyte.

The columns are arrays in memory, or files that are mapped, see :mod:`shard_index`. n images in k shards.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from .kinds import count_kinds
from .packed_strings import PackedStrings
from .shard_members import MOST_CLASSES, Members, Sample

_ROW = 6  # values of a sample's row, see Sample
# Names as bytes, one after the other, and where each ends; offset and size of image and caption, -1: there is none;
# whether the caption is JSON; and the class, -1: there is none.
COLUMNS: dict[str, tuple[str, int]] = {
    "names": ("|u1", 1),
    "ends": ("<i8", 1),
    "images": ("<i8", 2),
    "captions": ("<i8", 2),
    "json": ("|u1", 1),
    "labels": ("<i8", 1),
}
MANIFEST = "manifest.json"
_PIECE = 1 << 20  # bytes that are read at once for a sum

Keep = Callable[[str, np.ndarray], None]


class Summary(NamedTuple):
    """What is known of all samples together."""

    spans: list[int]  # index of the first image of each shard, and n
    fingerprint: str
    passed_over: dict[str, int]  # suffix -> images of kinds that are not read
    passed_name: str  # the first of them; empty: there is none
    folders: dict[str, int]  # folder in the members' names -> its class, where they belong together one to one; or {}


@dataclass(frozen=True, eq=False)
class ShardTable:
    """The samples of a set of shards."""

    summary: Summary
    names: PackedStrings
    images: np.ndarray  # (n, 2): offset, size
    captions: np.ndarray  # (n, 2): offset, size; -1: there is none
    is_json: np.ndarray  # (n,)
    labels: np.ndarray  # (n,); -1: there is none
    place: Path | None = None  # where the columns are mapped from; None: they are in memory

    def samples(self, first: int, last: int) -> list[Sample]:
        """Samples first to last - 1, as they were listed."""
        rows = zip(
            self.images[first:last].tolist(),
            self.captions[first:last].tolist(),
            self.is_json[first:last].tolist(),
            self.labels[first:last].tolist(),
            strict=True,
        )
        return [
            Sample(self.names[place], (*image, *caption, int(is_json), label))
            for place, (image, caption, is_json, label) in enumerate(rows, start=first)
        ]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return super().__reduce_ex__(protocol) if self.place is None else (map_table, (self.place,))


def gather(listed: Iterable[tuple[str, Members]], keep: Keep, *, rules: int) -> Summary:
    """Give ``keep`` the columns of one shard after the other, by name; each shard is its name and what it holds."""
    digest, spans, end = hashlib.sha256(), [0], 0
    passed_over: list[str] = []
    folders = _Folders()
    for shard, (found, others) in listed:
        passed_over += others
        encoded = [sample.name.encode("utf-8", "surrogateescape") for sample in found]
        table = np.array([sample.row for sample in found], np.int64).reshape(-1, _ROW)
        keep("names", np.frombuffer(b"".join(encoded), np.uint8))
        ends = end + np.cumsum([len(code) for code in encoded], dtype=np.int64)
        end = int(ends[-1]) if len(ends) else end
        parts = (ends, table[:, :2], table[:, 2:4], table[:, 4] == 1, table[:, 5])
        for column, part in zip(list(COLUMNS)[1:], parts, strict=True):
            keep(column, part)
        rows = (f"{s.name}\0{s.row[1]}\0{s.row[3]}\0{s.row[5]}\n" for s in found)  # no offsets: they may change
        digest.update(f"{shard}\n{''.join(rows)}".encode("utf-8", "surrogateescape"))
        spans.append(spans[-1] + len(found))
        if rules > 1:
            folders.add([sample.name for sample in found], table[:, 5].tolist())
    first = passed_over[0] if passed_over else ""
    return Summary(spans, digest.hexdigest(), count_kinds(passed_over), first, folders.found)


class _Folders:
    """Folder in the members' names -> its class; empty once two classes share one, or two folders a class."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self._of_class: dict[int, str] = {}
        self._broken = False

    def add(self, names: list[str], labels: list[int]) -> None:
        if self._broken:
            return
        folders = (name.rpartition("/")[0].rpartition("/")[2] for name in names)
        for folder, label in set(zip(folders, labels, strict=True)):
            own = self.found.setdefault(folder, label) == label and self._of_class.setdefault(label, folder) == folder
            if not folder or not own:
                self.found, self._broken = {}, True
                return


def table_in_memory(listed: Iterable[tuple[str, Members]], *, rules: int) -> ShardTable:
    """The samples of shards that are listed now."""
    parts: dict[str, list[np.ndarray]] = {column: [] for column in COLUMNS}
    summary = gather(listed, lambda column, part: parts[column].append(part), rules=rules)
    whole = {column: np.concatenate(found) for column, found in parts.items()}
    return _assemble(summary, whole, None)


def write_table(folder: Path, listed: Iterable[tuple[str, Members]], *, rules: int) -> tuple[Summary, dict[str, int]]:
    """The same into files of ``folder``, one for each column; the CRC-32 of each is returned too."""
    sums = dict.fromkeys(COLUMNS, 0)
    files = {column: open(folder / column, "wb") for column in COLUMNS}  # noqa: SIM115 (closed below)

    def keep(column: str, part: np.ndarray) -> None:
        data = np.ascontiguousarray(part, COLUMNS[column][0]).tobytes()
        sums[column] = zlib.crc32(data, sums[column])
        files[column].write(data)

    try:
        return gather(listed, keep, rules=rules), sums
    finally:
        for file in files.values():
            file.close()


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """What belongs to the columns, after its own CRC-32."""
    text = json.dumps(content).encode()
    (folder / MANIFEST).write_bytes(b"%08x\n" % zlib.crc32(text) + text)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises OSError or ValueError where it is not there or damaged."""
    told, _, text = (folder / MANIFEST).read_bytes().partition(b"\n")
    content = json.loads(text)
    if told != b"%08x" % zlib.crc32(text) or not isinstance(content, dict):
        raise ValueError("a damaged index")
    return content


def map_table(folder: Path) -> ShardTable:
    """The samples that :func:`write_table` wrote. Raises OSError, ValueError or KeyError for what is not whole."""
    told = read_manifest(folder)["summary"]
    summary = Summary(**told)
    count, whole = summary.spans[-1], {}
    for column, (kind, width) in COLUMNS.items():
        array = np.memmap(folder / column, kind, "r")
        whole[column] = array.reshape(-1, width) if width > 1 else array
    if any(len(whole[column]) != count for column in list(COLUMNS)[1:]) or whole["ends"][-1] != len(whole["names"]):
        raise ValueError("an index of another length")
    if not -1 <= whole["labels"].min() <= whole["labels"].max() < MOST_CLASSES:
        raise ValueError("an index of no classes")
    return _assemble(summary, whole, folder)


def sum_of(path: Path) -> int:
    """CRC-32 of a file, read in pieces: mapped pages would count as memory of this process."""
    found = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            found = zlib.crc32(piece, found)
    return found


def _assemble(summary: Summary, whole: Mapping[str, np.ndarray], place: Path | None) -> ShardTable:
    names = PackedStrings.packed(whole["names"], whole["ends"])
    return ShardTable(
        summary, names, whole["images"], whole["captions"], whole["json"] == 1, whole["labels"], place=place
    )
