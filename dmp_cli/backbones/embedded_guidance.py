"""The scale of guidance that a distilled backbone reads itself, for each image that a thread draws."""

from __future__ import annotations

import torch
from torch import Tensor

from ..runtime import Ambient

guided_inside: Ambient[Tensor] = Ambient()  # scales of the images of a chunk, (B,); None: the backbone's own


def rows_of_guidance(x: Tensor, *, default: float) -> Tensor:
    """The scale for every row of ``x`` (B, ...), which may hold the images of a chunk several times: (B,)."""
    scales = guided_inside.value
    if scales is None:
        return torch.full((len(x),), default, device=x.device)
    return scales.to(device=x.device, dtype=torch.float32).repeat(len(x) // len(scales))
