"""One guided prediction: from the null condition to the class or text, and away from another version of the network.

B images in a chunk, (C, H, W) the shape of what the backbone denoises.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..backbones import Backbone
from ..config import SampleConfig
from ..patching import Versions


def predict(
    denoiser: Callable[..., Tensor],
    x: Tensor,
    timestep: float,
    condition: Tensor | None,
    *,
    backbone: Backbone,
    config: SampleConfig,
    guidance: Tensor | None = None,
    negative: Tensor | None = None,
    apart: float = 0,
) -> Tensor:
    """One prediction (B, C', H, W) in float32; C' is C, or 2 C with a learned variance.

    Classifier-free guidance: eps = eps_null + w (eps_cond - eps_null) on the guided channels. ``guidance`` is w for
    each image, (B,); None: ``config.guidance`` for all images. ``negative``, (B,), stands in for the null condition.

    Guidance between versions, where ``denoiser`` is Versions and W = ``apart`` is not 0: W (eps_cond - b) is added on
    all channels of the noise, for the prediction b of the other version under the same condition. So the whole is
    a_c + W (a_c - b_c) + (w - 1) (a_c - a_0).
    """
    scale = torch.full((len(x),), config.guidance) if guidance is None else guidance
    # ``scale`` is still on the CPU, so nothing waits for a GPU
    is_guided = condition is not None and not bool((scale == 1).all())
    null = (backbone.null_condition(len(x)) if negative is None else negative) if is_guided else None
    conditions = [condition, *([null] if is_guided else []), *([condition] if apart else [])]
    found = _predict_all(denoiser, x, timestep, conditions, against=bool(apart))
    whole = found[0]
    if is_guided:
        guided = 3 if config.guidance_channels == "3" else x.shape[1]
        conditional, null = found[0], found[1]
        factor = scale.to(x.device)[:, None, None, None]
        epsilon = null[:, :guided] + factor * (conditional[:, :guided] - null[:, :guided])
        whole = torch.cat([epsilon, conditional[:, guided:]], dim=1)
    if apart:
        noise = x.shape[1]
        epsilon = whole[:, :noise] + apart * (found[0][:, :noise] - found[-1][:, :noise])
        whole = torch.cat([epsilon, whole[:, noise:]], dim=1)
    return _spoil(whole)


def _spoil(prediction: Tensor) -> Tensor:
    """``prediction`` (B, ...), all NaN in rows that overflow: clipping would make an image of infinities, unseen."""
    is_finite = prediction.isfinite().flatten(1).all(1)
    return prediction.masked_fill(~is_finite[:, None, None, None], torch.nan)


def _predict_all(
    denoiser: Callable[..., Tensor], x: Tensor, timestep: float, conditions: list[Tensor | None], *, against: bool
) -> list[Tensor]:
    """A prediction (B, C', H, W) in float32 for each of ``conditions``, in one batch.

    ``against``: whether the last one is that of the other version.
    """
    count = len(conditions)
    timesteps = torch.full((count * len(x),), timestep, device=x.device)
    given = [condition for condition in conditions if condition is not None]
    inputs = x if count == 1 else torch.cat([x] * count), timesteps, torch.cat(given) if given else None
    if isinstance(denoiser, Versions):
        theirs = torch.arange(count).repeat_interleave(len(x)) == (count - 1 if against else count)
        return list(denoiser(*inputs, against=theirs).float().chunk(count))
    return list(denoiser(*inputs).float().chunk(count))
