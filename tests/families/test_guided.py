"""``guide`` in the stock pipeline of every family: one call of its denoiser against the formula written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli import DMPError, attach, guide
from dmp_cli.backbones import as_backbone
from dmp_cli.patching.calls import take_prediction
from tests.builders import filled_patch

from .cases import Case

_SCALE = 2.0


def first_call(case: Case, pipe: Any, core: torch.nn.Module) -> tuple[Any, Any]:
    """The arguments of the first call that the pipeline makes, at a size of many tokens."""
    seen: list[tuple[Any, Any]] = []
    handle = core.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    how = {"num_inference_steps": 2, "guidance_scale": case.guidance, "height": 128, "width": 128, **case.call}
    try:
        pipe(case.texts[0], output_type="latent", **how)
    finally:
        handle.remove()
    return seen[0]


@pytest.mark.slow
@torch.no_grad()
def test_a_call_of_the_pipeline_is_led_away(case: Case, place: Path) -> None:
    if case.core is None:
        pytest.skip("no pipeline of diffusers draws from it")
    pipe = case.pipeline(place)
    core = getattr(pipe, case.core)
    args, kwargs = first_call(case, pipe, core)
    patch = filled_patch(as_backbone(core))

    def predicted() -> torch.Tensor:
        return take_prediction(core(*args, **kwargs))

    ours = core(*args, **kwargs)
    if isinstance(args[0] if args else next(iter(kwargs.values())), list):
        with guide(core, against=patch, classifier_free=False), pytest.raises(DMPError, match="images as a list"):
            predicted()
        return
    ours = take_prediction(ours)
    patched = attach(core, patch)
    theirs = predicted()
    patched.detach()
    half = len(ours) // 2
    free = patched.backbone.has_null and half > 0
    away = _SCALE * (ours - theirs)
    expected = ours + (torch.cat([away[half:]] * 2) if free else away)
    channels = patched.backbone.sample_shape[0] if ours.ndim == 4 else ours.shape[1]  # the rest is a learned variance
    expected[:, channels:] = ours[:, channels:]
    assert away.abs().max() > 1e-3
    for interval in (None, (0.5, 1.0)):  # the first call is that of pure noise
        with guide(core, against=patch, scale=_SCALE, classifier_free=free, interval=interval):
            assert torch.allclose(predicted(), expected, atol=1e-5), interval
    with guide(core, against=patch, scale=_SCALE, classifier_free=free, interval=(0.0, 0.1)):
        assert torch.equal(predicted(), ours)
