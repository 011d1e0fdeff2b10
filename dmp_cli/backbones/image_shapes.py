"""What the forward of a model that no family names tells of its images: how many tokens, and where they are.

Letters: B batch, C channels, H, W sides of the noised image or of a map, N image tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..config import ImageAt
from ..errors import CheckpointError
from .dry_forward import Seen, Shape

_ASK = "Where text is among them, say where the image is: --image-at LIST=last, or first."


def image_shapes(model: Any, seen: Seen, image_at: Mapping[str, ImageAt | None]) -> tuple[int | None, list[Shape]]:
    """The side of the squares that are one token, and the shape of the image's hidden state in each block.

    ``image_at`` says where the image is in the sequence of each block; None: it is alone there.

    Raises:
        CheckpointError: it is no image, or nothing tells which tokens are the image's.
    """
    latent = seen.inputs[seen.latent]
    kinds = {len(shape) for shape in seen.hidden.values()}
    if len(latent) not in (3, 4) or not kinds <= {3, 4} or len(kinds) > 1:
        name, shape = next(iter(seen.hidden.items()))
        raise CheckpointError(
            f"a {seen.latent} of {latent} and {name}'s hidden state of {shape}: only images, as tokens (B, N, D) or as "
            "maps (B, C, H, W) in all blocks, can be patched"
        )
    if kinds == {4}:
        if any(image_at.values()):
            raise CheckpointError("--image-at is for sequences of image and text; these blocks are given maps")
        return None, [(shape[2], shape[3], shape[1]) for shape in seen.hidden.values()]
    count = _image_tokens(model, seen, image_at)
    for name, shape in seen.hidden.items():
        if shape[1] != count and not (image_at[name] and shape[1] > count):
            raise CheckpointError(f"{name} is given {shape[1]} tokens, and the image has {count}", hint=_ASK)
    per_token = None if len(latent) == 3 else math.isqrt(latent[2] * latent[3] // count)
    return per_token, [(count, shape[2]) for shape in seen.hidden.values()]


def _image_tokens(model: Any, seen: Seen, image_at: Mapping[str, ImageAt | None]) -> int:
    """N: of the noised image where it is tokens; else of the first block that is given no text, or by the config."""
    latent = seen.inputs[seen.latent]
    if len(latent) == 3:
        if math.isqrt(latent[1]) ** 2 != latent[1]:
            raise CheckpointError(f"--inputs {seen.latent}: {latent[1]} tokens form no square", hint="Give a square.")
        return latent[1]
    height, width = latent[2:]
    alone = [(name, shape[1]) for name, shape in seen.hidden.items() if image_at[name] is None]
    patch_size = model.config.get("patch_size")
    if not alone and not isinstance(patch_size, int):
        raise CheckpointError(
            "how many tokens of a sequence are the image's is not known: its config has no patch_size"
        )
    name, count = alone[0] if alone else ("patch_size", (height // patch_size) * (width // patch_size))
    side = math.isqrt(height * width // max(1, count))
    if not side or height % side or width % side or (height // side) * (width // side) != count:
        raise CheckpointError(
            f"{name} is given {count} tokens, and an image of {height} x {width} is not that many squares", hint=_ASK
        )
    return count
