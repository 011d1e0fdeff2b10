"""The text store: what the text encoders gave of every caption, kept so that each is encoded only once.

A store belongs to the encoders, not to a data set: any captions may be in it, and are found by their digests. It is a
folder with ``manifest.json``, which says which encoders they are, and files that each hold some captions. A file
appears whole or not at all, so several processes can fill one store, and any may be killed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..config import Frozen
from ..data import Damaged
from ..errors import DataError
from ..storage import StoreFolder, key_of, write_bytes
from .store_file import DTYPES, OpenTexts, Row, cut, file_bytes

NAMES = frozenset({"source"})  # fields of the record that are for people
_OPEN = 256  # files that are mapped at once


class TextStoreRecord(Frozen):
    """Which encoders a store is of: the content of ``manifest.json``."""

    format_version: int = 1
    kind: str  # as TextRecord.kind
    encoders: str  # SHA-256 of their weights
    tokenizers: str  # SHA-256 of their vocabularies and rules
    length: int  # tokens of a caption that are asked for
    version: int  # of how the captions are given to the encoders
    masked: bool  # whether padding is left out, which the backbone does not read
    dtype: Literal["bf16", "fp16", "fp32"]
    source: str  # name of the pipeline's folder

    @property
    def key(self) -> str:
        """SHA-256 over all fields but the source, as hex."""
        return key_of(self, without=NAMES)


def digest_of_caption(caption: str) -> bytes:
    """What a caption is found by: its SHA-256."""
    return hashlib.sha256(caption.encode("utf-8", "surrogatepass")).digest()


class TextStore(StoreFolder[TextStoreRecord]):
    """One store. It is small to send to other processes: each of them opens the memory-mapped files on first use."""

    what, option, names = "text store", "--text-store-dir", NAMES
    words: ClassVar = {
        "encoders": "other text encoders",
        "tokenizers": "other tokenizers",
        "version": "captions were encoded in another way",
    }

    def __init__(self, path: Path, record: TextStoreRecord) -> None:
        super().__init__(path, record)
        self._open: OrderedDict[str, OpenTexts] = OrderedDict()  # by file name, the least recently used first
        self._where: dict[bytes, tuple[str, int]] = {}  # file and row of each caption, by digest
        self._seen: set[str] = set()  # files that have been looked at

    def is_whole(self) -> bool:
        """A store grows with the captions that are asked for; see :meth:`missing`."""
        return False

    def refresh(self) -> None:
        """Look at the files that have appeared since the last time. Damaged ones count as missing."""
        there = {path.name for path in self.path.glob("*.safetensors")}
        for name in sorted(self._seen - there):  # somebody else has dropped it
            self._forget(name)
        for name in sorted(there - self._seen):
            with contextlib.suppress(Damaged):
                for row, digest in enumerate(self._opened(name).digests):
                    self._where.setdefault(digest, (name, row))
                self._seen.add(name)

    def missing(self, captions: Iterable[str]) -> list[str]:
        """Those of ``captions`` that are in none of the files seen so far, each once, in their order."""
        return [one for one in dict.fromkeys(captions) if digest_of_caption(one) not in self._where]

    def find(self, caption: str) -> dict[str, Tensor] | None:
        """What the encoders gave of a caption, in the store's precision, in the CPU's memory; None: it is not here.

        Raises:
            DataError: the store's bytes differ from what was written; the file is removed, so that it is made again.
        """
        place = self._where.get(digest_of_caption(caption))
        if place is None:
            return None
        name, row = place
        try:
            return self._opened(name).row(row)
        except Damaged as error:
            self.drop(name)
            raise DataError(str(error), hint="Run the command again: what is damaged is encoded again.") from error

    def name_for(self, captions: Sequence[str]) -> str:
        """The name of the file that holds just these captions."""
        return hashlib.sha256(b"".join(map(digest_of_caption, captions))).hexdigest()[:24] + ".safetensors"

    def write(self, captions: Sequence[str], rows: Sequence[Row]) -> None:
        """Write a file of what the encoders gave of these captions.

        Raises:
            DataError: a value is too large for the store's precision.
        """
        dtype = DTYPES[self.record.dtype]
        stored = []
        for row in rows:
            kept = {name: value if value.dtype.is_floating_point else value.bool() for name, value in row.items()}
            own = {
                name: value.to("cpu", dtype) if value.is_floating_point() else value.cpu()
                for name, value in kept.items()
            }
            if not all(bool(value.isfinite().all()) for value in own.values()):
                raise DataError(
                    f"a text encoder gives values that {self.record.dtype} cannot hold",
                    hint="Keep them in another precision with --text-dtype bf16.",
                )
            stored.append(cut(own) if self.record.masked else own)
        lengths = {name: [len(row[name]) for row in rows] for name in rows[0] if name.startswith("states")}
        digests = [digest_of_caption(caption) for caption in captions]
        name = self.name_for(captions)
        write_bytes(self.path / name, file_bytes(self.record.key, digests, stored, lengths))
        if name in self._seen:  # the one that was there was damaged
            self._forget(name)

    def drop(self, name: str) -> None:
        """Remove a file, so that what is in it is encoded again."""
        self._forget(name)
        with contextlib.suppress(OSError):  # on a read-only disk the file stays, and is refused again
            (self.path / name).unlink(missing_ok=True)

    def _forget(self, name: str) -> None:
        self._open.pop(name, None)
        self._seen.discard(name)
        self._where = {digest: place for digest, place in self._where.items() if place[0] != name}

    def _opened(self, name: str) -> OpenTexts:
        if name not in self._open:
            self._open[name] = OpenTexts(self.path / name, self.record.key, self.record.dtype)
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return self._open[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}
