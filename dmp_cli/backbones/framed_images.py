"""How the images of a thread's forward were cut from their pictures, which some backbones read in training."""

from __future__ import annotations

from torch import Tensor

from ..runtime import Ambient
from .row_groups import own_rows

FACTOR = 8  # image pixels per latent pixel, of all backbones that read sizes

framed: Ambient[Tensor] = Ambient()  # height, width, top, left, and target size of each image, (B, 6); None: not cut


def frames_of(x: Tensor) -> Tensor | None:
    """How the images of ``x`` (B, ...) were cut, (B, 6) in its type; None: not at all."""
    return None if framed.value is None else own_rows(framed.value).to(x)


def sizes_of_images(x: Tensor) -> Tensor:
    """Height, width, top, left, and target size of the images of latents ``x`` (B, C, H, W) in pixels, (B, 6).

    Where nothing else is said the image counts as never cropped and of the size it has, as in the stock pipelines'
    defaults; a training in buckets says how each image was cut.
    """
    frames = frames_of(x)
    if frames is not None:
        return frames
    height, width = (FACTOR * side for side in x.shape[2:])
    return x.new_tensor([[height, width, 0, 0, height, width]]).expand(len(x), -1)
