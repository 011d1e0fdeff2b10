"""The scale of guidance that a distilled backbone reads itself, for each image that this thread draws."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor


class _Here(threading.local):
    """What the running thread asks for."""

    def __init__(self) -> None:
        self.scales: Tensor | None = None  # (B,) of one chunk; None: the backbone's own


_HERE = _Here()


@contextlib.contextmanager
def guided_inside(scales: Tensor) -> Iterator[None]:
    """Context in which forwards of a chunk read these scales, (B,), or as often as B rows fit into theirs."""
    before, _HERE.scales = _HERE.scales, scales
    try:
        yield
    finally:
        _HERE.scales = before


def rows_of_guidance(x: Tensor, *, default: float) -> Tensor:
    """The scale for every row of ``x`` (B, ...), (B,)."""
    scales = _HERE.scales
    if scales is None:
        return torch.full((len(x),), default, device=x.device)
    return scales.to(device=x.device, dtype=torch.float32).repeat(len(x) // len(scales))
