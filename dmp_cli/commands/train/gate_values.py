"""How the gate of a patch weighs its prompts now, for histograms of trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ...training import Trainee

_TIMESTEPS = 21  # from the first to the last


def gate_values(trainee: Trainee) -> dict[str, np.ndarray]:
    """The gate's weights times N over timesteps from the first to the last: of all blocks, and of each.

    1 is what each prompt has under a uniform gate. Nothing where no gate is trained.
    """
    import torch

    from ...diffusion import level_grid
    from ...patching import PatchedBackbone

    patched = trainee.denoiser
    if not isinstance(patched, PatchedBackbone) or patched.patch.config.gate in ("none", "constant"):
        return {}
    timesteps = level_grid(patched.backbone.schedule, _TIMESTEPS).to(patched.backbone.device)
    with torch.no_grad():
        weights = patched.gating(timesteps).weights.float().cpu().numpy()  # (T, L, N)
    weights = weights * weights.shape[-1]
    blocks = {f"gates/block-{block:02d}": weights[:, block] for block in range(weights.shape[1])}
    return {"gates/all": weights, **blocks}
