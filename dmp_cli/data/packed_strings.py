"""Many strings in one block of memory: the reference counts of a list would make each worker process copy it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class PackedStrings:
    """A sequence of strings, decoded one at a time; file names with bytes that are not UTF-8 are kept exactly.

    ``blob``: all bytes, (m,) uint8; ``ends``: where each string ends, (n,).
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        self.blob = np.frombuffer(b"".join(encoded), np.uint8)
        self.ends = np.cumsum([len(code) for code in encoded], dtype=np.int64)  # (n,)

    @classmethod
    def packed(cls, blob: np.ndarray, ends: np.ndarray) -> PackedStrings:
        """Strings that are packed already: all bytes, and where each string ends (n,)."""
        self = cls(())
        self.blob, self.ends = blob, ends
        return self

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return self.blob[start : self.ends[index]].tobytes().decode("utf-8", "surrogateescape")
