"""Arrays of an .npz, each as large as its bytes say: checked before memory is taken, and never unpickled.

An entry of the zip says how many bytes it unpacks to, the header of its array which shape it has; they must agree.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DMPError
from .limits import check_file, check_memory

_KINDS = "biufU"  # of numpy's types: truth, whole numbers, floating point, text
HEADER_BYTES = 1 << 16  # at the start of an entry, in which the header of its array ends
_MOST_ENTRIES = 10_000
_RATIO, _ANY_RATIO = 200, 64 << 20  # how much an entry may unpack to: so many times its size, or so many bytes
_PARTS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ArrayHeader(NamedTuple):
    """What an array says of itself, and where its values begin in its entry."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool
    begin: int


def read_arrays(path: Path, names: Iterable[str], *, kind: type[DMPError]) -> dict[str, np.ndarray]:
    """The arrays ``names`` of an .npz; those that it lacks are left out.

    Raises:
        DMPError: of ``kind``: it is missing, damaged, larger than this machine's memory, or an array holds objects.
    """
    check_file(path, kind=kind)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive, kind, path)
            wanted = {name: entries[f"{name}.npy"] for name in names if f"{name}.npy" in entries}
            check_memory(2 * sum(entry.file_size for entry in wanted.values()), name=str(path), kind=kind)
            return {name: _read(archive, entry) for name, entry in wanted.items()}
    except DMPError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a different type for every way a file can be broken
        raise _unreadable(path, error, kind) from error


def array_header(start: bytes, *, size: int) -> ArrayHeader:
    """The header of an array by the first 64 KiB of its entry, which has ``size`` bytes.

    Raises:
        ValueError: it is damaged, holds objects, or is not as long as its shape says.
    """
    file = io.BytesIO(start[:HEADER_BYTES])
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
    except Exception as error:  # the header is a line of Python, which numpy's readers parse: they raise anything
        raise ValueError(f"the header of its array cannot be read: {error}") from error
    begin = file.tell()
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise ValueError(f"it holds {dtype}, not numbers")
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != size - begin:
        raise ValueError(f"its array of shape {shape} is not as long as that: {size - begin:,} bytes are there")
    return ArrayHeader(shape, dtype, by_columns, begin)


def list_entries(path: Path, *, kind: type[DMPError]) -> dict[str, zipfile.ZipInfo]:
    """The entries of an .npz by name. Raises ``kind`` when it is missing or damaged."""
    check_file(path, kind=kind)
    try:
        with zipfile.ZipFile(path) as archive:
            return _entries(archive, kind, path)
    except DMPError:
        raise
    except Exception as error:
        raise _unreadable(path, error, kind) from error


def _entries(archive: zipfile.ZipFile, kind: type[DMPError], path: Path) -> dict[str, zipfile.ZipInfo]:
    found = archive.infolist()
    names = {entry.filename for entry in found}
    if len(found) > _MOST_ENTRIES or len(names) < len(found):
        raise kind(f"{path} is no .npz of this kind: it holds {len(found):,} entries, {len(names):,} names")
    return {entry.filename: entry for entry in found}


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    if entry.compress_type not in _PARTS:
        raise ValueError(f"{entry.filename} is compressed by a way that numpy does not use")
    if entry.file_size > max(_ANY_RATIO, _RATIO * entry.compress_size):
        raise ValueError(f"{entry.filename} unpacks to {entry.file_size // entry.compress_size:,} times its size")
    with archive.open(entry) as file:
        start = file.read(HEADER_BYTES)
        header = array_header(start, size=entry.file_size)
        data = start[header.begin :] + file.read(max(0, entry.file_size - len(start)))
    if len(data) != entry.file_size - header.begin:
        raise ValueError(f"{entry.filename} is cut short")
    values = np.frombuffer(data, header.dtype).copy()
    return values.reshape(header.shape, order="F" if header.by_columns else "C")


def _unreadable(path: Path, error: Exception, kind: type[DMPError]) -> DMPError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return kind(f"{path} is not a readable .npz file: {reason[:200]}", hint="It was cut short, or made otherwise.")
