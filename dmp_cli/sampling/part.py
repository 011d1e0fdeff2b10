"""Part: which of the images one of several processes draws."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """Every ``total``-th of the fixed chunks of consecutive images, beginning with chunk ``number`` (from 0)."""

    number: int = 0
    total: int = 1

    def of(self, chunks: list[range]) -> list[range]:
        """The chunks that belong to this part."""
        return chunks[self.number :: self.total]

    def draws(self, index: int, *, batch_size: int) -> bool:
        """Whether image ``index`` belongs to this part, where a chunk has ``batch_size`` images."""
        return index // batch_size % self.total == self.number
