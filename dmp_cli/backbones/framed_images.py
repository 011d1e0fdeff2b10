"""How the images of a thread's forward were cut from their pictures, which Stable Diffusion XL reads in training."""

from __future__ import annotations

from torch import Tensor

from ..runtime import Ambient

framed: Ambient[Tensor] = Ambient()  # height, width, top, left, and target size of each image, (B, 6); None: not cut


def frames_of(x: Tensor) -> Tensor | None:
    """How the images of ``x`` (B, ...) were cut, (B, 6) in its type; None: not at all."""
    return None if framed.value is None else framed.value.to(x)
