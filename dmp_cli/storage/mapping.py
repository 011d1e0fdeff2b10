"""Arrays that stay in their files: mapped into memory, and let go of once a part of them has been used.

A page of a mapped file counts as resident memory of the process from its first use. Whoever goes through a file that
is larger than memory lets go of it block by block; the system keeps the pages for as long as it has room.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DMPError
from .arrays import HEADER_BYTES, array_header, list_entries

_AT_ONCE = 50  # rows from all over a file
_OWN_HEADER = 30  # bytes of an entry's own header in a zip, before its name


def map_array(path: Path, name: str, *, kind: type[DMPError], copies: bool = False) -> np.ndarray | None:
    """The array ``name`` of an .npz, mapped where it lies; None: it is not there, or is compressed.

    ``copies``: what is written into it stays in memory, as torch takes no array that is read-only.

    Raises:
        DMPError: of ``kind``: the file is missing or damaged, or the array holds objects.
    """
    entry = list_entries(path, kind=kind).get(f"{name}.npy")
    if entry is None or entry.compress_type != zipfile.ZIP_STORED:
        return None
    try:
        with open(path, "rb") as file:
            file.seek(entry.header_offset)
            told, extra = struct.unpack("<HH", file.read(_OWN_HEADER)[26:])
            start = entry.header_offset + _OWN_HEADER + told + extra
            file.seek(start)
            header = array_header(file.read(HEADER_BYTES), size=entry.file_size)
        order: Literal["F", "C"] = "F" if header.by_columns else "C"
        return np.memmap(path, header.dtype, "c" if copies else "r", start + header.begin, header.shape, order)
    except (OSError, ValueError, struct.error, OverflowError) as error:
        raise kind(f"cannot read {path}: {error}") from error


def take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``array[rows]``, of which a mapped file leaves nothing in memory: the system maps much around each row."""
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype)
    for start in range(0, len(rows), _AT_ONCE):
        taken[start : start + _AT_ONCE] = array[rows[start : start + _AT_ONCE]]
        let_go(array)
    return taken


def let_go(array: np.ndarray) -> None:
    """Take the pages of a mapped file out of this process' memory; they are read again where they are needed.

    Nothing is done for an array that is in no file. What was written into a copy on write is lost.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        base.madvise(mmap.MADV_DONTNEED)
