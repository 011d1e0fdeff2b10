"""Features kept on disk while a set of images is measured, so that what a kill interrupts goes on, and many can share.

A set has a folder of its own, named by all that fixes its features. In it are files of consecutive images, each of
which appears whole or not at all; once all are there they become one, which is mapped into memory.

Letters: n images, d features.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..storage import let_go, staged_file, write_bytes
from .embedding import Embedded

_FILES = 64  # wanted of a set, so that processes can share it
_FEWEST, _MOST = 4, 32  # batches in a file; of the one at hand a kill loses all
_ALIGNED = 64  # bytes; the rows begin at a multiple of it
_HEADER = 1 << 24  # bytes of the longest header
_WHOLE = "whole"
_ABOUT = 320  # bytes of the first line of a file, where Pillow has warned of nothing


class _Header(NamedTuple):
    """The first line of a file, as JSON; the rows follow."""

    shape: tuple[int, int]  # of the rows: (n, d), float32
    sums: list[int]  # CRC-32 of the rows of each part
    sizes: frozenset[tuple[int, int]]
    jpegs: int
    remarks: tuple[str, ...]
    begin: int = 0  # of the rows, in the file

    def text(self) -> bytes:
        content = {**self._asdict(), "sizes": sorted(self.sizes)}
        del content["begin"]
        line = json.dumps(content).encode()
        return line + b" " * (-(len(line) + 1) % _ALIGNED) + b"\n"


def rows_per_file(count: int, *, batch_size: int) -> int:
    """Images in each file of a set of ``count``, whole batches of them.

    It depends on the set alone, not on how many processes share it: so do the batches, and with them every byte.
    """
    batches = -(-count // batch_size)
    return batch_size * min(_MOST, max(_FEWEST, -(-batches // _FILES)))


def kept_bytes(counts: Sequence[int], *, width: int, batch_size: int) -> int:
    """The most bytes that sets of so many images take on disk; those of one file are kept nowhere.

    All sets are kept at once, and one of them twice, while its files become one.
    """
    sizes = [0]
    for count in counts:
        rows = rows_per_file(count, batch_size=batch_size)
        sizes += [4 * count * width + _ABOUT * -(-count // rows)] if rows < count else []
    return sum(sizes) + max(sizes)


class KeptFeatures:
    """The features of one set of images in ``folder``, in a folder named by ``key``, all that fixes them."""

    def __init__(self, folder: Path, key: Mapping[str, Any], *, count: int, batch_size: int) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
        self.path, self.count, self.rows = folder / digest[:32], count, rows_per_file(count, batch_size=batch_size)

    @property
    def spans(self) -> list[range]:
        """The images in each file, by their places in the set."""
        return [range(start, min(start + self.rows, self.count)) for start in range(0, self.count, self.rows)]

    def missing(self) -> list[int]:
        """Numbers of the files that are not there, or not whole; none once they have become one."""
        spans = self.spans
        if self._whole() is not None:
            return []
        return [number for number, span in enumerate(spans) if self._header(self._file(number), len(span)) is None]

    def write(self, number: int, part: Embedded) -> None:
        """Keep file ``number``. Raises DMPError where it cannot be written."""
        rows = np.ascontiguousarray(part.rows, np.float32)
        sums = [zlib.crc32(rows.data)]
        header = _Header((len(rows), rows.shape[1]), sums, part.sizes, part.jpegs, part.remarks)
        write_bytes(self._file(number), header.text() + rows.tobytes())

    def load(self) -> Embedded | None:
        """All features, mapped from one file; None: some are missing or damaged, and are to be made again."""
        header = self._whole() or self._merge()
        if header is None:
            return None
        # Copied on write, as torch takes no array that is read-only.
        rows = np.memmap(self.path / _WHOLE, np.float32, "c", header.begin, header.shape)
        for number, (span, known) in enumerate(zip(self.spans, header.sums, strict=True)):
            is_whole = zlib.crc32(rows[span.start : span.stop].data) == known
            let_go(rows)
            if not is_whole:
                self._drop(number)
                return None
        return Embedded(rows, header.sizes, header.jpegs, header.remarks)

    def _whole(self) -> _Header | None:
        header = self._header(self.path / _WHOLE, self.count)
        return header if header is not None and len(header.sums) == len(self.spans) else None

    def _merge(self) -> _Header | None:
        """Make one file of all, and remove them. None: some are missing."""
        found: list[_Header] = []
        for number, span in enumerate(self.spans):
            header = self._header(self._file(number), len(span))
            if header is None or header.shape[1] != (found or [header])[0].shape[1]:
                return None
            found.append(header)
        width = found[0].shape[1]
        whole = _Header(
            (self.count, width),
            [header.sums[0] for header in found],
            frozenset[tuple[int, int]]().union(*(header.sizes for header in found)),
            sum(header.jpegs for header in found),
            tuple(remark for header in found for remark in header.remarks),
        )
        with staged_file(self.path / _WHOLE) as partial, open(partial, "wb") as file:
            file.write(whole.text())
            for number, header in enumerate(found):
                file.write(np.memmap(self._file(number), np.uint8, "r", header.begin).data)
        for number in range(len(found)):
            self._file(number).unlink(missing_ok=True)
        return self._whole()

    def _drop(self, number: int) -> None:
        """Remove what is damaged. Of the whole, everything goes: its files are gone already."""
        (self.path / _WHOLE).unlink(missing_ok=True)
        self._file(number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:05d}"

    @staticmethod
    def _header(path: Path, count: int) -> _Header | None:
        """What a file says of itself; None: it is not there, is damaged, or does not hold ``count`` images."""
        try:
            with open(path, "rb") as file:
                line = file.readline(_HEADER)
                size = file.seek(0, 2)
            told = json.loads(line)
            sizes = frozenset((int(width), int(height)) for width, height in told["sizes"])
            rows, width = (int(side) for side in told["shape"])
            header = _Header((rows, width), told["sums"], sizes, int(told["jpegs"]), tuple(told["remarks"]), len(line))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return header if rows == count and width > 0 and size == len(line) + 4 * rows * width else None
