"""Sampling with text, and backbones that predict v: against diffusers' own pipeline, and the same flow in noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dmp_cli.backbones import load_backbone
from dmp_cli.config import Prompt, SampleConfig, ScheduleConfig
from dmp_cli.diffusion.loss import denoising_loss
from dmp_cli.diffusion.schedule import Schedule, noise_betas
from dmp_cli.latents.loading import load_codec
from dmp_cli.runtime import randomness
from dmp_cli.sampling.sampler import denoise, resolve, sample
from tests.backbones.pipelines import write_stock_pipeline
from tests.builders import tiny_dit


def test_images_are_those_of_the_stock_pipeline(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    pipe = write_stock_pipeline(tmp_path)
    changes = {"steps_offset": 0, "set_alpha_to_one": True}
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **changes)
    pipe.set_progress_bar_config(disable=True)
    backbone = load_backbone(str(tmp_path))
    config = SampleConfig(
        num_images=3,
        batch_size=3,
        sampler="ddim",
        steps=10,
        guidance=7.5,
        prompts=(Prompt(text="a red fox"), Prompt(text="two cats", seed=5), Prompt(text="")),
    )
    (ours,) = sample(backbone, backbone=backbone, codec=load_codec(None, backbone), config=resolve(config, backbone))
    sources = [(0, 0), (5, 0), (0, 2)]  # (seed, index): a prompt with its own seed counts for itself
    starts = [randomness.normal("start", (4, 16, 16), seed=seed, indices=[index]) for seed, index in sources]
    prompts = [prompt.text for prompt in config.prompts or ()]
    theirs = pipe(prompts, latents=torch.cat(starts), num_inference_steps=10, guidance_scale=7.5, output_type="np")
    for own, other in zip(ours, theirs.images, strict=True):
        assert np.abs(own.pixels / 255 - other).max() <= 1 / 255
    assert [one.label for one in ours] == prompts


def test_scaled_linear_by_hand() -> None:
    schedule = ScheduleConfig(kind="scaled_linear", beta_start=0.04, beta_end=0.16, num_timesteps=3)
    torch.testing.assert_close(noise_betas(schedule), torch.tensor([0.2**2, 0.3**2, 0.4**2], dtype=torch.float64))


class InV(nn.Module):
    """A denoiser's answer as v = sqrt(abar) eps - sqrt(1 - abar) x_0, its variance as it is."""

    def __init__(self, denoiser: nn.Module, schedule: ScheduleConfig) -> None:
        super().__init__()
        self.denoiser, self.kept = denoiser, (1 - noise_betas(schedule)).cumprod(0)

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        epsilon, variance = self.denoiser(x, timesteps, condition).double().chunk(2, dim=1)
        kept = self.kept[timesteps].view(-1, 1, 1, 1)
        x0 = (x.double() - (1 - kept).sqrt() * epsilon) / kept.sqrt()
        return torch.cat([kept.sqrt() * epsilon - (1 - kept).sqrt() * x0, variance], dim=1).float()


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_a_flow_in_v_is_the_flow_in_noise(sampler: str) -> None:
    backbone = tiny_dit()
    config = resolve(SampleConfig(num_images=2, batch_size=2, sampler=sampler, steps=10), backbone)  # type: ignore[arg-type]
    expected = denoise(backbone, range(2), backbone=backbone, config=config, clips=False)
    wrapped = InV(backbone, backbone.schedule)
    backbone.schedule = ScheduleConfig(prediction="v_prediction")
    found = denoise(wrapped, range(2), backbone=backbone, config=config, clips=False)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_the_loss_in_v_by_hand() -> None:
    plain, config = ScheduleConfig(), ScheduleConfig(prediction="v_prediction")
    source = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=source) for _ in range(2))
    timesteps = torch.tensor([7, 800])
    schedule = Schedule(config)
    xt = schedule.add_noise(x0, noise=noise, timesteps=timesteps)
    kept = (1 - noise_betas(config)).cumprod(0)[timesteps].view(-1, 1, 1, 1)
    v = kept.sqrt() * noise - (1 - kept).sqrt() * x0
    given = {"x0": x0, "xt": xt, "noise": noise, "timesteps": timesteps}
    assert float(denoising_loss(v, **given, schedule=schedule).total.abs().max()) < 1e-12
    wrong = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=source)
    expected = [float((v[row] - wrong[row]).square().mean()) for row in range(2)]
    assert denoising_loss(wrong, **given, schedule=schedule).total.tolist() == pytest.approx(expected, rel=1e-6)
    # a learned variance is bounded around the same mean, whichever way that is said
    variance = torch.rand(2, 4, 3, 3, dtype=torch.float64, generator=source)
    epsilon = kept.sqrt() * wrong + (1 - kept).sqrt() * xt
    in_v = denoising_loss(torch.cat([wrong, variance], 1), **given, schedule=schedule)
    in_noise = denoising_loss(torch.cat([epsilon, variance], 1), **given, schedule=Schedule(plain))
    torch.testing.assert_close(in_v.bound, in_noise.bound, rtol=1e-5, atol=1e-8)
