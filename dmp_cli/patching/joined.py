"""The image's tokens in a block's hidden state that holds text too: taken out, and put back.

Letters: B batch, M tokens of the hidden state, N image tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backbones import Joined, Layout


def take_image(hidden: Tensor, joined: Joined, layout: Layout) -> Tensor:
    """The image's tokens of ``hidden``: (B, M, D) -> (B, N, D)."""
    count = layout.grid[0] * layout.grid[1]
    if joined == "first":
        return hidden[:, :count]
    if joined == "last":
        return hidden[:, hidden.shape[1] - count :]
    return hidden.gather(1, _places(hidden, layout))


def put_image(hidden: Tensor, image: Tensor, joined: Joined, layout: Layout) -> Tensor:
    """``hidden`` (B, M, D) with ``image`` (B, N, D) in place of the image's tokens."""
    count = image.shape[1]
    if joined == "first":
        return torch.cat([image, hidden[:, count:]], dim=1)
    if joined == "last":
        return torch.cat([hidden[:, : hidden.shape[1] - count], image], dim=1)
    return hidden.scatter(1, _places(hidden, layout), image)


def _places(hidden: Tensor, layout: Layout) -> Tensor:
    """The place of each of the image's tokens in the sequence, (B, N, D)."""
    assert layout.text is not None
    count = layout.grid[0] * layout.grid[1]
    first = layout.text.to(hidden.device)[:, None]
    places = first + torch.arange(count, device=hidden.device)
    return places[..., None].expand(len(hidden), -1, hidden.shape[2])
