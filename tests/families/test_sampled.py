"""Images of every family: those of its stock pipeline from the same noise, by every sampler, at other sizes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.z_image import pipeline_z_image

from dmp_cli.backbones import Backbone
from dmp_cli.config import Prompt, SampleConfig
from dmp_cli.errors import ConfigError
from dmp_cli.latents import set_image_size
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching import attach
from dmp_cli.runtime import randomness
from dmp_cli.sampling.sampler import denoise, resolve
from tests.builders import filled_patch

from .cases import CASES, Case
from .shown import shows

STEPS = 5


def drawn(case: Case, backbone: Backbone, denoiser: Any = None, **changes: Any) -> torch.Tensor:
    """Two samples, (2, C, H, W)."""
    told: dict[str, Any] = {"num_images": 2, "batch_size": 2, "steps": STEPS, "guidance": case.guidance, **changes}
    told |= {"prompts": tuple(Prompt(text=text) for text in case.texts)} if backbone.takes_text else {"classes": (0, 1)}
    config = resolve(SampleConfig(**told), backbone)
    return denoise(denoiser or backbone, range(2), backbone=backbone, config=config, clips=False)


def starts(backbone: Backbone) -> list[torch.Tensor]:
    """The noise of the two samples, (1, C, H, W) each."""
    return [randomness.normal("start", backbone.sample_shape, seed=0, indices=[index]) for index in range(2)]


def stock(case: Case, pipe: Any, backbone: Backbone) -> torch.Tensor:
    """The same two samples by the stock pipeline."""
    if case.name == "Z-Image" and not hasattr(pipeline_z_image, "get_default_z_image_sigmas"):
        pytest.skip("this diffusers draws it at other levels than the newest, which dmp follows")
    packs, factor = backbone.family in ("flux", "qwenimage"), pipe.vae_scale_factor
    height, width = (side * factor for side in backbone.sample_shape[1:])
    how = {"num_inference_steps": STEPS, "guidance_scale": case.guidance, "height": height, "width": width, **case.call}
    found = []
    for text, start in zip(case.texts, starts(backbone), strict=True):
        latents = pipe._pack_latents(start, 1, *backbone.sample_shape) if packs else start
        images = pipe(text, latents=latents, output_type="latent", **how).images
        unpacked = pipe._unpack_latents(images, height, width, factor) if packs else images
        found.append(unpacked.squeeze(2) if unpacked.ndim == 5 else unpacked)
    return torch.cat(found)


def by_formula(case: Case, backbone: Backbone, denoiser: Any) -> torch.Tensor:
    """The same two samples by DDIM, or by Euler along the flow, written out."""
    x, labels, scale = torch.cat(starts(backbone)), torch.arange(2), case.guidance

    def guided(at: torch.Tensor, level: Any) -> torch.Tensor:
        levels = torch.full((2,), level)
        one, other = (denoiser(at.float(), levels, c)[:, : at.shape[1]] for c in (labels, torch.full((2,), 4)))
        return (other + scale * (one - other)).to(at.dtype)

    if backbone.schedule.flow is None:
        kept = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
        visited = list(range(0, 1000, 1000 // STEPS))
        for place in reversed(range(STEPS)):
            now, after = kept[visited[place]], kept[visited[place - 1]] if place else torch.tensor(1.0)
            noise = guided(x, visited[place])
            clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
            x = (after.sqrt() * clean + (1 - after).sqrt() * noise).float()
        return x
    x = x.double()
    ends = (0.0, 1.0) if backbone.schedule.flow == "sit" else (1.0, 0.0)
    levels = torch.linspace(*ends, STEPS + 1, dtype=torch.float64)
    for now, after in itertools.pairwise(levels):
        x = x + (after - now) * guided(x, float(now))
    return x.float()


@shows("samples", lambda case: "by formula" if case.core is None else "stock pipeline's")
@pytest.mark.parametrize("patched", [False, True])
@torch.no_grad()
def test_samples_are_those_of_the_stock_pipeline(case: Case, place: Path, backbone: Backbone, patched: bool) -> None:
    denoiser: Any = backbone
    patch = filled_patch(backbone) if patched else None
    if patch is not None:
        denoiser = attach(backbone, patch)
    if case.core is None:
        ours = drawn(case, backbone, denoiser, sampler="ode-euler" if backbone.schedule.flow else "ddim")
        theirs = by_formula(case, backbone, denoiser)
    else:
        pipe = case.pipeline(place)
        if patch is not None:
            attach(getattr(pipe, case.core), patch, force=True)
        ours, theirs = drawn(case, backbone, denoiser, sampler="pipeline"), stock(case, pipe, backbone)
    for own, other in zip(ours, theirs, strict=True):
        assert (own - other).norm() <= 1e-5 * other.norm()


@pytest.mark.slow
@shows("any shape", lambda case: "stock pipeline's" if case.any_size else "squares alone")
@torch.no_grad()
def test_a_patch_of_a_square_on_another_shape(case: Case, place: Path, backbone: Backbone) -> None:
    patch = filled_patch(backbone)
    channels, side, _ = backbone.sample_shape
    if not case.any_size:  # its table of positions is a square's
        with pytest.raises(ConfigError, match=f"make images of {side} pixels and square ones only"):
            set_image_size(f"{side + 2}x{side}", backbone, PixelCodec(3))
        return
    set_image_size(f"{side + side // 2}x{side}", backbone, PixelCodec(3))  # width first
    assert backbone.sample_shape == (channels, side, side + side // 2)
    denoiser, pipe = attach(backbone, patch), case.pipeline(place)
    bare = stock(case, pipe, backbone)
    attach(getattr(pipe, str(case.core)), patch, force=True)
    ours, theirs = drawn(case, backbone, denoiser, sampler="pipeline"), stock(case, pipe, backbone)
    assert ours.shape == (2, *backbone.sample_shape)
    for own, other in zip(ours, theirs, strict=True):
        assert (own - other).norm() <= 1e-5 * other.norm()
    assert not torch.allclose(bare, theirs, atol=1e-3)


@pytest.mark.slow
@shows("samplers", lambda case: ", ".join(case.samplers))
def test_every_sampler(case: Case, backbone: Backbone) -> None:
    everyone = {name for other in CASES for name in other.samplers}
    found = {}
    for name in sorted(everyone):
        if name in case.samplers:
            found[name] = drawn(case, backbone, sampler=name, steps=4)
            assert found[name].isfinite().all()
            assert torch.equal(found[name], drawn(case, backbone, sampler=name, steps=4))
        else:
            with pytest.raises(ConfigError, match="--sampler"):
                drawn(case, backbone, sampler=name, steps=4)
    same = {"pipeline"}  # it is one of the named ones
    others = [value for name, value in found.items() if name not in same]
    assert all(not torch.equal(a, b) for n, a in enumerate(others) for b in others[:n])


@pytest.mark.slow
@shows("any size", lambda case: "yes" if case.any_size else "its own")
def test_other_sizes(case: Case, backbone: Backbone) -> None:
    codec, own = PixelCodec(3), backbone.sample_shape[1]
    patched = attach(backbone, filled_patch(backbone))
    if not case.any_size:
        with pytest.raises(ConfigError, match="make images of"):
            set_image_size(2 * own, backbone, codec)
        return
    with torch.no_grad():
        set_image_size(own + 4, backbone, codec)
        larger = drawn(case, backbone, patched, sampler=case.samplers[0], steps=4)
        assert larger.shape == (2, backbone.sample_shape[0], own + 4, own + 4)
        assert larger.isfinite().all()
        patched.detach()
        assert not torch.equal(larger, drawn(case, backbone, sampler=case.samplers[0], steps=4))
    if backbone.side_multiple > 1:
        with pytest.raises(ConfigError, match=r"need a multiple of .* pixels; the nearest that fit are"):
            set_image_size(own + 1, backbone, codec)
    if backbone.largest_side is not None:
        with pytest.raises(ConfigError, match="and no more"):
            set_image_size(backbone.largest_side + backbone.side_multiple, backbone, codec)
