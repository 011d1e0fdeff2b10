"""What a pipeline's scheduler says about sampling, against diffusers' own scheduler made of the same config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones.schedules import schedule_of
from dmp_cli.config import BackboneHints, SampleConfig, ScheduleConfig
from dmp_cli.errors import ConfigError
from dmp_cli.sampling.scheduler import build_scheduler, check_steps
from dmp_cli.storage import Weights
from tests.zoo.schedulers import DDPM_LIKE

SAMPLERS = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler"}
OURS = {"ddpm": "linspace", "ddim": "leading", "dpm++": "linspace"}
DDPM = {"_class_name": "DDPMScheduler", "clip_sample": True}


def read(config: dict[str, Any]) -> ScheduleConfig:
    weights = Weights({}, {}, None, Path("folder"), scheduler=config)
    return schedule_of(weights, BackboneHints(), family="unet", learns_sigma=True)


def chain(scheduler: Any, steps: int) -> torch.Tensor:
    """A sample drawn with a made-up denoiser whose guesses reach beyond [-1, 1]."""
    scheduler.set_timesteps(steps)
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, generator=source)
    for timestep in scheduler.timesteps:
        extra = {"generator": source} if type(scheduler).__name__ == "DDPMScheduler" else {}
        x = scheduler.step(0.5 * x - 0.1, timestep, x, **extra).prev_sample
    return x


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "changes",
    [
        {"variance_type": "fixed_large"},
        {"clip_sample_range": 0.5},
        {"clip_sample": False},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"set_alpha_to_one": False},
    ],
    ids=str,
)
def test_a_stated_field_gives_the_numbers_of_diffusers(sampler: str, changes: dict[str, Any]) -> None:
    import diffusers

    given = {**DDPM, "variance_type": "fixed_small", "timestep_spacing": OURS[sampler], **changes}
    theirs = {**given, "_class_name": SAMPLERS[sampler], "beta_start": 1e-4, "beta_end": 0.02}
    if sampler == "dpm++":
        theirs.pop("variance_type")
    expected = chain(getattr(diffusers, SAMPLERS[sampler]).from_config(theirs), 20)
    found = build_scheduler(
        read(given), SampleConfig(sampler=sampler, steps=20), learns_sigma=True, clips=sampler == "ddim"
    )
    torch.testing.assert_close(chain(found, 20), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_fields_make_a_difference(sampler: str) -> None:
    """If they made none, the comparison above would show nothing."""

    def draw(**changes: Any) -> torch.Tensor:
        built = build_scheduler(
            read({**DDPM, **changes}), SampleConfig(sampler=sampler, steps=20), learns_sigma=False, clips=True
        )
        return chain(built, 20)

    fields: dict[str, dict[str, Any]] = {
        "ddpm": {"variance_type": "fixed_large", "clip_sample_range": 0.5, "timestep_spacing": "leading"},
        "ddim": {"clip_sample_range": 0.5, "set_alpha_to_one": False, "timestep_spacing": "trailing"},
        "dpm++": {"thresholding": True, "timestep_spacing": "trailing"},
    }
    plain = draw()
    for key, value in fields[sampler].items():
        assert (draw(**{key: value}) - plain).abs().max() > 1e-4, key


def test_without_a_rule_the_original_samplers_count() -> None:
    config = SampleConfig(sampler="ddpm", steps=20)
    built = build_scheduler(ScheduleConfig(), config, learns_sigma=True, clips=True)
    known = {"timestep_spacing": "linspace", "variance_type": "learned_range", "clip_sample": True}
    assert {key: built.config[key] for key in known} == known
    stable = read(DDPM_LIKE["stabilityai/stable-diffusion-2-1"])
    ddim = build_scheduler(stable, SampleConfig(sampler="ddim", steps=50), learns_sigma=False, clips=False)
    assert (int(ddim.timesteps[0]), int(ddim.timesteps[-1])) == (981, 1)  # as the public pipeline draws
    assert json.loads(stable.model_dump_json())["sampling"]["steps_offset"] == 1


def test_an_offset_that_leads_beyond_the_last_timestep() -> None:
    stable = read(DDPM_LIKE["stabilityai/stable-diffusion-2-1"])
    check_steps(SampleConfig(sampler="ddim", steps=500), stable)
    with pytest.raises(ConfigError, match="--steps 1000: the pipeline's steps_offset 1 leads beyond the last of 1000"):
        check_steps(SampleConfig(sampler="ddim", steps=1000), stable)
