"""One file of a latent store: rows of consecutive images, their sums, and a header; see ``store``."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from ..data import Damaged

if TYPE_CHECKING:
    from .store import StoreRecord

HEADER, SUM = "dmp.latents", "dmp.crc32"  # keys of the metadata: the header, and its CRC-32


class OpenFile:
    """One memory-mapped file of a store, whose size, header and shapes have been checked."""

    def __init__(self, path: Path, record: StoreRecord, number: int) -> None:
        try:
            file = safe_open(str(path), framework="np")
            metadata = file.metadata() or {}
            header = json.loads(metadata[HEADER])
            if zlib.crc32(metadata[HEADER].encode()) != int(metadata[SUM]):
                raise ValueError("its header was changed after it was written")
            self.rows, self.sums = file.get_slice("rows"), file.get_tensor("crc32")
            shape, dtype = tuple(self.rows.get_shape()), self.rows.get_dtype()
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise Damaged(f"{path} is damaged: {error}") from error
        expected = (len(record.span(number)), *record.shape)
        known = {"uint8": "U8", "float32": "F32"}[record.dtype]
        if (header.get("key"), header.get("number"), shape, dtype) != (record.key, number, expected, known):
            raise Damaged(f"{path} belongs to another store")
        self.problems = {int(index): str(message) for index, message in header["problems"].items()}

    def row(self, row: int, flip: int) -> tuple[np.ndarray, int]:
        """One image (K, H, W), and the checksum it had when it was written."""
        return np.ascontiguousarray(self.rows[row : row + 1, flip : flip + 1][0, 0]), int(self.sums[row, flip])


def sums_of(rows: np.ndarray) -> np.ndarray:
    """The CRC-32 of each image and flip of ``rows`` (k, F, K, H, W)."""
    return np.array([[zlib.crc32(flip.data) for flip in row] for row in rows], np.int64)  # (k, F)
