"""Every sampler against the stock pipelines of diffusers: the same start and the same noise give the same latents."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.config import PlanLine, SampleConfig
from dmp_cli.patching import attach
from dmp_cli.sampling.plan import Plan
from dmp_cli.sampling.sampler import denoise, resolve
from tests.backbones.pipelines import tiny_plain_unet, write_stock_pipeline
from tests.builders import filled_patch

from .stock import (
    NOISE,
    SOURCES,
    check_same,
    draw_dit,
    draw_ours,
    draw_pixart,
    draw_stable,
    reseed,
    starts,
    state_scheduler,
    stock_dit,
    write_pixart_pipeline,
)

OWN: list[tuple[str, dict[str, Any]]] = [
    ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),
    ("PNDMScheduler", {"skip_prk_steps": False}),
    ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": True, "clip_sample_range": 2.0}),
    ("DDPMParallelScheduler", {"thresholding": True, "sample_max_value": 1.5, "timestep_spacing": "trailing"}),
    ("LMSDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1, "use_karras_sigmas": True}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}),
    ("EulerAncestralDiscreteScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "leading"}),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True, "clip_sample": True, "clip_sample_range": 2.0}),
    ("KDPM2DiscreteScheduler", {}),
    ("KDPM2AncestralDiscreteScheduler", {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", {"solver_order": 3, "solver_type": "heun", "lower_order_final": False}),
    ("DPMSolverMultistepScheduler", {"euler_at_final": True, "final_sigmas_type": "sigma_min"}),
    ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
    ("DEISMultistepScheduler", {"solver_order": 3}),
    ("UniPCMultistepScheduler", {"solver_type": "bh1", "disable_corrector": [0, 1], "final_sigmas_type": "sigma_min"}),
]
NAMED = {
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
}
LINEAR = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}  # of PixArt and DiT
ORIGINAL = {"clip_sample": False}  # in latents, as ddpm and ddim follow the original samplers
STEPS = 4


def _taken(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Those of ``fields`` that a class takes, as ``from_config`` finds them."""
    known = inspect.signature(getattr(diffusers, kind).__init__).parameters
    return {key: value for key, value in fields.items() if key in known}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipelines")


@pytest.fixture(scope="module")
def stable(folder: Path) -> tuple[Path, Any, Any]:
    """The folder of a tiny StableDiffusionPipeline, the pipeline, and our backbone from it."""
    place = folder / "stable"
    pipe = write_stock_pipeline(place)
    pipe.set_progress_bar_config(disable=True)
    return place, pipe, load_backbone(str(place))


@pytest.mark.parametrize(("kind", "changes"), OWN, ids=lambda value: str(value)[:60])
def test_the_pipelines_own(kind: str, changes: dict[str, Any], stable: tuple[Path, Any, Any]) -> None:
    (place, pipe, backbone), guidance = stable, 7.5
    scheduler = getattr(diffusers, kind)(**changes, **NOISE)
    state_scheduler(place, backbone, scheduler)
    theirs = draw_stable(pipe, scheduler, steps=STEPS, guidance=guidance)
    check_same(draw_ours(backbone, sampler="pipeline", steps=STEPS, guidance=guidance), theirs)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("sampler", ["pipeline", *NAMED])
def test_a_name_beside_the_pipelines_own(sampler: str, guidance: float, stable: tuple[Path, Any, Any]) -> None:
    place, pipe, backbone = stable
    state_scheduler(place, backbone, diffusers.PNDMScheduler(**NOISE, steps_offset=1, timestep_spacing="leading"))
    stated = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
    kind = NAMED.get(sampler, "PNDMScheduler")
    scheduler = getattr(diffusers, kind)(**NOISE, **_taken(kind, {**ORIGINAL, **stated}))
    theirs = draw_stable(pipe, scheduler, steps=STEPS, guidance=guidance)
    check_same(draw_ours(backbone, sampler=sampler, steps=STEPS, guidance=guidance), theirs)


@pytest.fixture(scope="module")
def pixart(folder: Path) -> tuple[Path, Any, Any]:
    place = folder / "pixart"
    pipe = write_pixart_pipeline(place, diffusers.DPMSolverMultistepScheduler())
    return place, pipe, load_backbone(str(place))


@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("sampler", ["pipeline", "dpm++", "euler", "euler-a", "heun", "unipc"])
def test_pixart(sampler: str, guidance: float, pixart: tuple[Path, Any, Any]) -> None:
    place, pipe, backbone = pixart
    own = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True)
    scheduler = own if sampler == "pipeline" else getattr(diffusers, NAMED[sampler])(**LINEAR)
    state_scheduler(place, backbone, own)
    theirs = draw_pixart(pipe, scheduler, steps=STEPS, guidance=guidance)
    check_same(draw_ours(backbone, sampler=sampler, steps=STEPS, guidance=guidance), theirs)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_dit(sampler: str, guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """DiTPipeline steps from the scaled input, which is right only for samplers that scale nothing."""
    backbone = stock_dit()
    scheduler = getattr(diffusers, NAMED[sampler])(**LINEAR, **_taken(NAMED[sampler], ORIGINAL))
    theirs = draw_dit(backbone, scheduler, steps=STEPS, guidance=guidance, monkeypatch=monkeypatch)
    check_same(draw_ours(backbone, sampler=sampler, steps=STEPS, guidance=guidance), theirs)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_sampler_over_noise_levels_with_a_learned_variance(sampler: str) -> None:
    """The first half of the channels is the noise; the start and each input are scaled."""
    backbone, scheduler = stock_dit(), getattr(diffusers, NAMED[sampler])(**LINEAR)
    scheduler.set_timesteps(STEPS)
    x, classes = starts((4, 8, 8), ((0, 0), (0, 1))) * scheduler.init_noise_sigma, torch.tensor([3, 7])
    assert float(scheduler.init_noise_sigma) > 100
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            seen = scheduler.scale_model_input(x, timestep)
            output = backbone.model(seen, timestep=timestep.expand(2), class_labels=classes).sample[:, :4]
            x = scheduler.step(output, timestep, x).prev_sample
    check_same(draw_ours(backbone, sampler=sampler, steps=STEPS), x)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("family", ["stable", "pixart"])
def test_a_patch_at_fractions(
    family: str, sampler: str, stable: tuple[Path, Any, Any], pixart: tuple[Path, Any, Any]
) -> None:
    """The gate's weights, computed once for a chunk, are those of the network's own embedding in the pipeline."""
    place, pipe, backbone = stable if family == "stable" else pixart
    own = getattr(diffusers, NAMED[sampler])(use_karras_sigmas=True, **(NOISE if family == "stable" else LINEAR))
    state_scheduler(place, backbone, own)
    own.set_timesteps(STEPS)
    assert any(not float(timestep).is_integer() for timestep in own.timesteps)
    patch = filled_patch(backbone)
    bare = draw_ours(backbone, sampler="pipeline", steps=STEPS, guidance=3)
    theirs = attach(pipe.unet if family == "stable" else pipe.transformer, patch)
    try:
        draw = draw_stable if family == "stable" else draw_pixart
        expected = draw(pipe, own, steps=STEPS, guidance=3)
    finally:
        theirs.detach()
    patched = attach(backbone, filled_patch(backbone))
    try:
        found = draw_ours(backbone, patched, sampler="pipeline", steps=STEPS, guidance=3)
    finally:
        patched.detach()
    check_same(found, expected)
    assert float((found - bare).abs().max()) > 1e-3 * float(bare.abs().max())


def test_pixels_by_the_pipelines_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DDPMPipeline clips its guess of x_0 in pixels, and draws the noise of each step from the image's generator."""
    from diffusers.pipelines.ddpm import pipeline_ddpm

    pipe = diffusers.DDPMPipeline(unet=tiny_plain_unet(), scheduler=diffusers.DDPMScheduler())
    pipe.save_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    backbone, step, done = load_backbone(str(tmp_path)), pipe.scheduler.step, []

    def reseeded(*args: Any, **given: Any) -> Any:
        sources = [torch.Generator(), torch.Generator()]
        reseed(len(done), sources)
        done.append(None)
        return step(*args, **{**given, "generator": sources})

    monkeypatch.setattr(pipe.scheduler, "step", reseeded)
    monkeypatch.setattr(pipeline_ddpm, "randn_tensor", lambda *args, **given: starts((3, 8, 8)))
    images = pipe(batch_size=2, num_inference_steps=STEPS, output_type="np").images
    lines = tuple(PlanLine(seed=seed, place=place) for seed, place in SOURCES)
    config = resolve(SampleConfig(num_images=2, batch_size=2, sampler="pipeline", steps=STEPS), backbone)
    plan = Plan(config, lines)
    ours = denoise(backbone, range(2), backbone=backbone, config=config, clips=True, plan=plan)
    check_same((ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), torch.from_numpy(images))
