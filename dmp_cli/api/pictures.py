"""The gates of an attached patch as one picture, for notebooks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import PatchError

if TYPE_CHECKING:
    from ..patching import PatchedBackbone

_TIMESTEPS = 100  # rows of each heatmap


def draw_gates_of(patched: PatchedBackbone, name: str) -> bytes:
    """Draw the gate of the patch called ``name`` over timesteps and prompts, block by block, as PNG.

    Raises:
        PatchError: it has no gate, so that there is nothing to see.
    """
    import torch

    from ..analysis import draw_gates
    from ..diffusion import level_grid

    patch = patched.patches[name]
    if patch.gate is None:
        raise PatchError("this patch has no gate")
    timesteps = level_grid(patched.backbone.schedule, _TIMESTEPS).to(patched.backbone.device)
    with torch.inference_mode():
        weights = patched.gating(timesteps, name=name).weights[..., patch.parts[0]].float().cpu().numpy()
    side = math.isqrt(patch.num_prompts)
    lies_on_image = patch.config.has_prompts and patch.config.position == "add" and side * side == patch.num_prompts
    return draw_gates(
        weights, timesteps.cpu().numpy(), title="Gate weights", grid=(side, side) if lies_on_image else None
    )
