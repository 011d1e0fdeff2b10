"""One file of a latent store: rows of consecutive images, their sums, and a header; see ``store``."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open

from ..data import Damaged
from ..errors import DataError
from ..storage import read_sealed

if TYPE_CHECKING:
    from .store import StoreRecord

HEADER = "dmp.latents"  # key of the metadata


class _FileHeader(BaseModel):
    """What a file says of itself."""

    key: str  # of its store
    number: int
    problems: dict[int, str]  # a message for each image that could not be read


class OpenFile:
    """One memory-mapped file of a store, whose size, header and shapes have been checked."""

    def __init__(self, path: Path, record: StoreRecord, number: int) -> None:
        try:
            head, header = read_sealed(path, HEADER, _FileHeader)
            count, known = len(record.span(number)), {"uint8": "U8", "float32": "F32"}.get(record.dtype)
            expected = {"rows": ((count, *record.shape), known), "crc32": ((count, record.shape[0]), "I64")}
            found = {name: (entry.shape, entry.dtype) for name, entry in head.tensors.items()}
            if (header.key, header.number, found) != (record.key, number, expected):
                raise Damaged(f"{path} belongs to another store")
            file = safe_open(str(path), framework="np")
            self.rows, self.sums = file.get_slice("rows"), file.get_tensor("crc32")
        except (OSError, KeyError, DataError, SafetensorError) as error:
            reason = error.message if isinstance(error, DataError) else str(error)
            raise Damaged(f"{path} is damaged: {reason}") from error
        self.problems = {index: message for index, message in header.problems.items() if index in record.span(number)}

    def row(self, row: int, flip: int) -> tuple[np.ndarray, int]:
        """One image (K, H, W), and the checksum it had when it was written."""
        return np.ascontiguousarray(self.rows[row : row + 1, flip : flip + 1][0, 0]), int(self.sums[row, flip])


def sums_of(rows: np.ndarray) -> np.ndarray:
    """The CRC-32 of each image and flip of ``rows`` (k, F, K, H, W)."""
    return np.array([[zlib.crc32(flip.data) for flip in row] for row in rows], np.int64)  # (k, F)
