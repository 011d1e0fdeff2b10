"""The latent store: the output of a codec for every image of a data set, kept so that it is computed only once.

A store is a folder with ``manifest.json``, which says what it was made from, and files that each hold a fixed number of
consecutive images. A file appears whole or not at all, so several processes can fill one store, and any may be killed.

n images; K values for each position of the (H, W) latent grid of an image; F flips, 2 if mirror images are stored too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ..config import Frozen
from ..data import Damaged
from ..errors import ConfigError, DataError
from ..storage import PARTIAL, check_types, make_folder, read_object, safetensors_bytes, write_bytes, write_json
from .store_file import HEADER, SUM, OpenFile, sums_of

_MANIFEST = "manifest.json"
_FILE_BYTES = 64 << 20  # about the size of a file, and the work that a process loses when it is killed
_FILES, _FEWEST = 32, 16  # files wanted, so that processes can share the work; images that a file should hold at least
_LOCKS = ".locks"


class StoreRecord(Frozen):
    """What a store holds and what it was made from: the content of ``manifest.json``."""

    format_version: int = 1
    codec: str  # pixel, vae or tiny-vae
    codec_digest: str | None  # SHA-256 of its weights; None for pixels
    image_size: int  # pixels
    channels: int  # of the images
    crop: str  # how images were cropped to squares
    data: str  # name of the data's folder or file
    fingerprint: str  # of the data
    count: int  # n
    shape: tuple[int, ...]  # of one image: (F, K, H, W)
    dtype: str  # uint8 or float32
    rows: int  # images in a file; the last file has the rest

    @property
    def key(self) -> str:
        """SHA-256 over all fields but the data's name, as hex: it stays the same when data are moved or renamed."""
        return hashlib.sha256(self.model_dump_json(exclude={"data"}).encode()).hexdigest()

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
    """Images per file, for images of this shape: about 64 MiB, or less when there would be too few files to share."""
    large = _FILE_BYTES // (int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return max(1, min(large, max(_FEWEST, -(-count // _FILES))))


class LatentStore:
    """One store. It is small to send to worker processes: each of them opens the memory-mapped files on first use."""

    def __init__(self, path: Path, record: StoreRecord) -> None:
        self.path, self.record = Path(path), record
        self._open: dict[int, OpenFile] = {}

    def check(self) -> None:
        """Check that the folder is this store or may become it. Nothing is written.

        Raises:
            ConfigError: the folder holds other files, or another store; the message says what differs.
        """
        if self.path.exists() and not all(_belongs(inner.name) for inner in self.path.iterdir()):
            raise ConfigError(f"{self.path} holds other files", hint="Give an empty folder with --store-dir.")
        manifest = self.path / _MANIFEST
        differing = _differences(manifest, self.record) if manifest.exists() else []
        if differing:
            raise ConfigError(
                f"{self.path} is a latent store of something else: {'; '.join(differing)}",
                hint="Give another folder with --store-dir, or remove this one, so that it is made again.",
            )

    def claim(self) -> None:
        """Make the folder, or :meth:`check` the one that is there. Any number of processes may do so at once.

        Raises:
            ConfigError: see :meth:`check`.
            DMPError: the folder cannot be written.
        """
        self.check()
        if (self.path / _MANIFEST).exists() and not self.missing():
            return  # nothing is left to write: the disk may be read-only
        make_folder(self.locks)
        with FileLock(self.locks / "manifest"):
            if not (self.path / _MANIFEST).exists():
                write_json(self.path / _MANIFEST, self.record.model_dump(mode="json"))
        self.check()

    @property
    def locks(self) -> Path:
        """The folder of the locks that processes hold while they write. It stays: another may be about to lock."""
        return self.path / _LOCKS

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
        metadata = {HEADER: header, SUM: str(zlib.crc32(header.encode()))}
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


def _belongs(name: str) -> bool:
    """Whether a file of this name may be in a store."""
    return name in (_MANIFEST, _LOCKS) or name.endswith((PARTIAL, ".safetensors"))


def read_store_record(manifest: Path) -> StoreRecord:
    """What a store is, by its ``manifest.json``. Raises ConfigError when that cannot be read."""
    hint = "Remove the folder, so that it is made again."
    try:
        content = read_object(manifest, paths=True)
    except ConfigError as error:
        raise ConfigError(error.message, hint=hint) from error
    return check_types(StoreRecord, content, name=str(manifest), kind=ConfigError, hint=hint)


def _differences(manifest: Path, record: StoreRecord) -> list[str]:
    there = read_store_record(manifest)
    words = {"fingerprint": "the data have changed", "codec_digest": "another codec"}
    fields = [
        name for name in StoreRecord.model_fields if name != "data" and getattr(there, name) != getattr(record, name)
    ]
    return [words.get(name) or f"{name} {getattr(there, name)}, not {getattr(record, name)}" for name in fields]
