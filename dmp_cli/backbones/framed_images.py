"""How the images of this thread's forward were cut from their pictures, which Stable Diffusion XL reads in training."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from torch import Tensor


class _Here(threading.local):
    """What the running thread trains on."""

    def __init__(self) -> None:
        self.frames: Tensor | None = None  # (B, 6); None: whole images


_HERE = _Here()


@contextlib.contextmanager
def framed(frames: Tensor | None) -> Iterator[None]:
    """Context in which a forward is of images that were cut so, (B, 6): height, width, top, left, and target size."""
    before, _HERE.frames = _HERE.frames, frames
    try:
        yield
    finally:
        _HERE.frames = before


def frames_of(x: Tensor) -> Tensor | None:
    """How the images of ``x`` (B, ...) were cut, (B, 6) in its type; None: not at all."""
    return None if _HERE.frames is None else _HERE.frames.to(x)
