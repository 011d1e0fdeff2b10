"""The latent store: the output of a codec for every image of a data set, kept so that it is computed only once.

A store is a folder with ``manifest.json``, which says what it was made from, and files that each hold a fixed number of
consecutive images. A file appears whole or not at all, so several processes can fill one store, and any may be killed.

n images; K values for each position of the (H, W) latent grid of an image; F flips, 2 if mirror images are stored too.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..config import Growing, ImageSize
from ..data import Damaged
from ..errors import DataError
from ..storage import StoreFolder, key_of, read_manifest, safetensors_bytes, sealed, write_bytes
from .store_file import HEADER, OpenFile, sums_of

_FILE_BYTES = 64 << 20  # about the size of a file, and the work that a process loses when it is killed
_FILES, _FEWEST = 256, 8  # files wanted, so that processes can share the work; images that are encoded together
_EARLIER_FILES, _EARLIER_FEWEST = 32, 16  # of stores that earlier versions have begun
NAMES = frozenset({"data"})  # fields of the record that are for people


class StoreRecord(Growing):
    """What a store holds and what it was made from: the content of ``manifest.json``."""

    later: ClassVar[frozenset[str] | None] = frozenset({"members"})

    format_version: int = 1
    codec: str  # pixel, vae or tiny-vae
    codec_digest: str | None  # SHA-256 of its weights; None for pixels
    image_size: ImageSize  # pixels
    channels: int  # of the images
    crop: str  # how images were cut to their size
    data: str  # name of the data's folder or file
    fingerprint: str  # of the data
    count: int  # n
    shape: tuple[int, ...]  # of one image: (F, K, H, W)
    dtype: str  # uint8 or float32
    rows: int  # images in a file; the last file has the rest
    members: str | None = None  # SHA-256 of which images of the data they are, for a bucket; None: all

    @property
    def key(self) -> str:
        """SHA-256 over all fields but the data's name, as hex: it stays the same when data are moved or renamed."""
        return key_of(self, without=NAMES)

    @property
    def num_files(self) -> int:
        return -(-self.count // self.rows)

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def span(self, number: int) -> range:
        """The images in file ``number``."""
        return range(number * self.rows, min((number + 1) * self.rows, self.count))


def rows_per_file(shape: Sequence[int], dtype: str, *, count: int) -> int:
    """Images per file, for images of this shape: about 64 MiB, or less when there would be too few files to share.

    A small store has files of whole groups of the images that are encoded together.
    """
    wanted = max(1, -(-count // (_FILES * _FEWEST))) * _FEWEST
    return max(1, min(_large(shape, dtype), wanted))


def earlier_rows_per_file(shape: Sequence[int], dtype: str, *, count: int) -> int:
    """The same by the rule of earlier versions, of which a small store was made by one process."""
    return max(1, min(_large(shape, dtype), max(_EARLIER_FEWEST, -(-count // _EARLIER_FILES))))


def _large(shape: Sequence[int], dtype: str) -> int:
    return _FILE_BYTES // (int(np.prod(shape)) * np.dtype(dtype).itemsize)


class LatentStore(StoreFolder[StoreRecord]):
    """One store. It is small to send to worker processes: each of them opens the memory-mapped files on first use."""

    what, option, names = "latent store", "--store-dir", NAMES
    words: ClassVar = {
        "fingerprint": "the data have changed",
        "codec_digest": "another codec",
        "members": "other images, or not those of one bucket",
    }

    def __init__(self, path: Path, record: StoreRecord) -> None:
        super().__init__(path, record)
        self._open: dict[int, OpenFile] = {}

    def is_whole(self) -> bool:
        """Whether every file is there."""
        return not self.missing()

    def file(self, number: int) -> Path:
        """The path of file ``number``, whether it exists or not."""
        return self.path / f"{number:05d}.safetensors"

    def held(self) -> int:
        """How many images are in the files that exist."""
        numbers = {path.name for path in self.path.glob("*.safetensors")}
        return sum(len(self.record.span(n)) for n in range(self.record.num_files) if self.file(n).name in numbers)

    def missing(self) -> list[int]:
        """Numbers of the files that do not exist or are damaged."""
        return [number for number in range(self.record.num_files) if not self.is_there(number)]

    def is_there(self, number: int) -> bool:
        """Whether file ``number`` exists, and its size, header and shapes are right."""
        path = self.file(number)
        if not path.exists():
            return False
        try:
            OpenFile(path, self.record, number)
        except Damaged:
            return False
        return True

    def write(self, number: int, rows: np.ndarray, problems: dict[int, str]) -> None:
        """Write file ``number``: ``rows`` (k, F, K, H, W), and for each unreadable image, by index, a message."""
        from torch import from_numpy

        sums = sums_of(rows)
        header = json.dumps({"key": self.record.key, "number": number, "problems": problems})
        metadata = sealed(HEADER, header)
        data = safetensors_bytes({"rows": from_numpy(rows), "crc32": from_numpy(sums)}, metadata)
        write_bytes(self.file(number), data)
        self._open.pop(number, None)

    def problems(self) -> dict[int, str]:
        """A message for each image, by index, that could not be read when the store was made."""
        found: dict[int, str] = {}
        for number in range(self.record.num_files):
            found |= self.problems_of(number)
        return found

    def problems_of(self, number: int) -> dict[int, str]:
        """Like :meth:`problems`, for the images of file ``number``, which must exist."""
        return self._opened(number).problems

    def content(self, number: int) -> tuple[np.ndarray, dict[int, str]]:
        """All rows (k, F, K, H, W) of file ``number``, which must exist, and its problems. Raises Damaged."""
        file = self._opened(number)
        rows = np.array(file.rows[:])
        if not np.array_equal(sums_of(rows), file.sums):
            raise Damaged(f"{self.file(number)} is damaged: images in it were changed after it was written")
        return rows, dict(file.problems)

    def drop(self, number: int) -> None:
        """Remove file ``number``, so that it is made again."""
        self._open.pop(number, None)
        with contextlib.suppress(OSError):  # on a read-only disk the file stays, and is refused again
            self.file(number).unlink(missing_ok=True)

    def read(self, index: int, *, mirrored: bool) -> np.ndarray:
        """The values of image ``index``, (K, H, W).

        Raises:
            DataError: the image could not be read when the store was made.
            Damaged: the store's bytes differ from what was written; the file is removed, so that it is made again.
        """
        number, row = divmod(index, self.record.rows)
        file = self._opened(number)
        if index in file.problems:
            raise DataError(file.problems[index])
        flips = self.record.shape[0]
        values, expected = file.row(row, int(mirrored) if flips == 2 else 0)
        if zlib.crc32(values.data) != expected:
            self.drop(number)
            raise Damaged(f"{self.file(number)} is damaged: image {index} in it was changed after it was written")
        return np.ascontiguousarray(values[..., ::-1]) if mirrored and flips == 1 else values

    def take_remarks(self) -> list[str]:
        """Nothing: remarks on an image are made when it is encoded."""
        return []

    def _opened(self, number: int) -> OpenFile:
        if number not in self._open:
            self._open[number] = OpenFile(self.file(number), self.record, number)
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def read_store_record(manifest: Path) -> StoreRecord:
    """What a store is, by its ``manifest.json``. Raises ConfigError when that cannot be read."""
    return read_manifest(manifest, StoreRecord)
