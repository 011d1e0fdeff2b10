"""The lines of a long file as records that stay on disk: a million of them take 8 bytes each in memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Generic, TypeVar

from ..config import Growing

R = TypeVar("R", bound=Growing)

FEW = 10_000  # records that are kept in memory as they are


class PackedRecords(Sequence[R], Generic[R]):
    """Records of one kind, in their order. Each is read from a file without a name when it is asked for."""

    def __init__(self, kind: type[R], records: Iterable[R]) -> None:
        self._kind = kind
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the records do
        self._starts = array("Q", [0])
        digest = hashlib.sha256()
        for record in records:
            line = record.model_dump_json().encode("utf-8", "surrogatepass")
            digest.update(line if len(self._starts) == 1 else b"\n" + line)
            self._file.write(line)
            self._starts.append(self._starts[-1] + len(line))
        self._file.flush()
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> R:  # type: ignore[override]  # one at a time
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._starts[index], self._starts[index + 1]
        # pread uses no file position, which forked processes and threads would share
        return self._kind.model_validate_json(os.pread(self._file.fileno(), end - start, start))

    def __iter__(self) -> Iterator[R]:
        return (self[index] for index in range(len(self)))


def digest_of(records: Sequence[R]) -> str:
    """SHA-256 over the records as lines of JSON."""
    if isinstance(records, PackedRecords):
        return records.digest
    return hashlib.sha256("\n".join(record.model_dump_json() for record in records).encode()).hexdigest()


def keep(kind: type[R], records: Iterable[R]) -> Sequence[R]:
    """All ``records``: a tuple of a few, packed where there are many."""
    stream = iter(records)
    first = tuple(islice(stream, FEW + 1))
    return first if len(first) <= FEW else PackedRecords(kind, chain(first, stream))
