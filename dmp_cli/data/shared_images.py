"""Images that two sources share, by content: a held-out image that is trained on too would prove nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..errors import DataError
from .source import ImageSource

_SHOWN = 3


def refuse_shared(
    held_out: ImageSource, training: ImageSource, *, which: Sequence[int], used: str = "trained on"
) -> None:
    """Raise DataError if an image ``which`` of ``held_out`` has the same bytes as one of ``training``; it names both.

    ``used`` says what ``training`` is used for. Only files of the same size are read.
    """
    wanted: dict[int, list[int]] = {}
    for index in which:
        wanted.setdefault(held_out.stamp(index).size, []).append(index)
    alike = [index for index in range(len(training)) if training.stamp(index).size in wanted]
    if not alike:
        return
    known = {_digest(held_out, index): index for indices in wanted.values() for index in indices}
    found = []
    for index in alike:
        digest = _digest(training, index)
        if digest and digest in known:
            found.append(f"{held_out.name(known[digest])} is {training.name(index)} (SHA-256 {digest[:12]})")
    if found:
        more = "; ..." if len(found) > _SHOWN else ""
        raise DataError(
            f"{len(found)} held-out images are {used} too: {'; '.join(found[:_SHOWN])}{more}",
            hint=f"Remove them from one of both: what was {used} shows no gain on new images.",
        )


def _digest(images: ImageSource, index: int) -> str:
    """The SHA-256 of an image's file; empty where it cannot be read, which is said where it is used."""
    try:
        return hashlib.sha256(images.read(index)).hexdigest()
    except DataError:
        return ""
