"""The tensors that REPA's checkpoints have beside those of a DiT, and the older names of its later blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .training_args import PROJECTORS

_LATER_BLOCK = re.compile(r"decoder_blocks\.(\d+)\.")  # in older files, counted from the first block behind blocks.*
_FIRST_BLOCK = re.compile(r"blocks\.(\d+)\.")


def as_dit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` under the names of a DiT, without the projectors, which no prediction needs."""
    before = 1 + max((int(found[1]) for name in tensors if (found := _FIRST_BLOCK.match(name))), default=-1)

    def renamed(name: str) -> str:
        return _LATER_BLOCK.sub(lambda found: f"blocks.{before + int(found[1])}.", name, count=1)

    return {renamed(name): tensor for name, tensor in tensors.items() if not name.startswith(PROJECTORS)}


def left_out(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What :func:`as_dit` leaves out, in words."""
    count = sum(name.startswith(PROJECTORS) for name in tensors)
    if not count:
        return ()
    return (f"left out {count} tensors projectors.*, which REPA's training needs and its predictions do not",)
