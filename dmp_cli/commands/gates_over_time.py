"""The gate weights of a patched backbone at all timesteps, and the places of its prompts in the image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..config import NetworkOptions
    from ..patching import PatchedBackbone


def weights_over_time(patched: PatchedBackbone) -> list[np.ndarray]:
    """Gate weights (T, L, N) at all timesteps, these (T,), and the weights (T, L, E) of experts beside prompts."""
    import torch

    from ..diffusion import level_grid

    timesteps = level_grid(patched.backbone.schedule).to(patched.backbone.device)
    with torch.inference_mode():
        weights = patched.gating(timesteps).weights
    known = weights.expand(len(timesteps), -1, -1).float().cpu().numpy()
    first, *further = [known[..., part] for part in patched.patch.parts] or [known]
    return [first, timesteps.cpu().numpy(), *further]


def gap_to(
    path: Path, weights: np.ndarray, network: NetworkOptions, device: torch.device, *, force: bool
) -> np.ndarray:
    """How far the gate of the patch at ``path`` is from ``weights`` (T, L, N), as (T, L) in nats."""
    from ..analysis import divergence
    from ..patching import attach, load_patch
    from ..pipeline import load_backbone_of

    other = load_patch(path)
    backbone = load_backbone_of(other, network, device)
    return divergence(weights, weights_over_time(attach(backbone, other, force=force))[0])


def square_grid(num_prompts: int) -> tuple[int, int] | None:
    """Rows and columns of the prompts' places in the image; None where they form no square."""
    side = math.isqrt(num_prompts)
    return (side, side) if side * side == num_prompts else None
