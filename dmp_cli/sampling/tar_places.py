"""Where the images of one tar lie in it, in 8 bytes for each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from ..data import GROUP, IMAGE, LATENT, image_name, index_of

_BLOCK = 512  # bytes; the contents of a tar begin at a multiple of it
_MOST = 1 << 32  # what four bytes hold


class Places:
    """Name of an image or latent in a tar -> the offset of its bytes, and their number."""

    def __init__(self, members: Iterable[tuple[str, int, int]], *, group: int) -> None:
        """``members``: name, offset and size of each; ``group``: which one the tar is of."""
        self._first = group * GROUP
        self._blocks: dict[str, array[int]] = {}  # by suffix; 0: it is not there, as a header comes before
        self._sizes: dict[str, array[int]] = {}
        self._others: dict[str, tuple[int, int]] = {}
        for name, offset, size in members:
            self._add(name, offset, size)

    def _add(self, name: str, offset: int, size: int) -> None:
        index = index_of(name)
        fits = index is not None and 0 <= index - self._first < GROUP
        if index is None or not fits or offset % _BLOCK or max(offset // _BLOCK, size) >= _MOST:
            self._others[name] = offset, size
            return
        end, at = _end_of(name), index - self._first
        if end not in self._blocks:
            self._blocks[end], self._sizes[end] = array("I", bytes(4 * GROUP)), array("I", bytes(4 * GROUP))
        self._blocks[end][at], self._sizes[end][at] = offset // _BLOCK, size

    def get(self, name: str) -> tuple[int, int] | None:
        """Offset and size of the file ``name``; None: it is not in this tar."""
        index, end = index_of(name), _end_of(name)
        if index is not None and 0 <= index - self._first < GROUP and end in self._blocks:
            at = index - self._first
            if self._blocks[end][at]:
                return self._blocks[end][at] * _BLOCK, self._sizes[end][at]
        return self._others.get(name)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        for end, blocks in self._blocks.items():
            yield from (image_name(self._first + at, end) for at, block in enumerate(blocks) if block)
        yield from self._others


def _end_of(name: str) -> str:
    return LATENT if name.endswith(LATENT) else IMAGE
