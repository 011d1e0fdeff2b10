"""What a latent store knows of the image files it was made from: beside each file of rows, their sizes, times and sums.

Pictures may be replaced by others of the same size. The sum tells; it is computed where size or time differ, or is
known, as in a zip. Stores of earlier versions have no such files: they are taken for what their fingerprint says.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..data import ImageSource, Stamp
from ..errors import DataError
from ..storage import read_header, safetensors_bytes, write_bytes
from .store import LatentStore

_NAME = "sources"  # (k, 3): size in bytes, time in ns, CRC-32; the last is -1 for a file that could not be read


def sources_file(store: LatentStore, number: int) -> Path:
    """Where the sources of file ``number`` are kept."""
    return store.path / f"{number:05d}.{_NAME}.safetensors"


def source_row(stamp: Stamp, crc: int) -> tuple[int, int, int]:
    """One row, of a file whose bytes had the CRC-32 ``crc`` when it was encoded."""
    return stamp.size, stamp.time, crc


def write_sources(store: LatentStore, number: int, sources: np.ndarray) -> None:
    """Keep the sources (k, 3) of file ``number``."""
    from torch import from_numpy

    write_bytes(sources_file(store, number), safetensors_bytes({_NAME: from_numpy(sources)}, {}))


def read_sources(store: LatentStore, number: int) -> np.ndarray | None:
    """The sources (k, 3) of file ``number``; None where an earlier version made it. A damaged file knows no sum."""
    path, count = sources_file(store, number), len(store.record.span(number))
    if not path.exists():
        return None
    try:
        head = read_header(path, kind=DataError)
        if {name: (entry.shape, entry.dtype) for name, entry in head.tensors.items()} == {_NAME: ((count, 3), "I64")}:
            return safe_open(str(path), framework="np").get_tensor(_NAME)
    except (OSError, DataError, SafetensorError):
        pass
    return np.full((count, 3), -2, np.int64)


def suspects(images: ImageSource, span: range, sources: np.ndarray) -> list[int]:
    """The images of ``span`` whose files may have changed, by what is known without reading them."""
    found = []
    for index, (size, time, crc) in zip(span, sources.tolist(), strict=True):
        stamp = images.stamp(index)
        same = stamp.crc == crc if stamp.crc is not None else (stamp.size, stamp.time) == (size, time)
        if not same:
            found.append(index)
    return found


def current_sum(images: ImageSource, index: int) -> int:
    """The CRC-32 of an image's file as it is now; -1 where it cannot be read."""
    try:
        return zlib.crc32(images.read(index))
    except DataError:
        return -1
