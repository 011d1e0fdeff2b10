"""Schedulers of diffusers, set up like the original samplers, and the numbers of steps that each can take."""

from __future__ import annotations

from typing import Any

from ..config import SampleConfig, ScheduleConfig
from ..diffusion import noise_betas
from ..errors import ConfigError


def check_steps(config: SampleConfig, num_timesteps: int) -> None:
    """Raise ConfigError for a number of steps that the sampler cannot take over ``num_timesteps`` timesteps."""
    # DPM++ needs one timestep more than it takes steps: two equal timesteps would make it divide by zero.
    limit = num_timesteps - 1 if config.sampler == "dpm++" else num_timesteps
    if config.steps > limit:
        raise ConfigError(
            f"--steps {config.steps}: {config.sampler} takes at most {limit} over {num_timesteps} timesteps"
        )
    # DDIM takes equal strides down to 0. If they begin far below the last timestep, it cannot start from pure noise.
    stride = num_timesteps // config.steps
    if config.sampler == "ddim" and config.steps * stride < 0.9 * num_timesteps:
        raise ConfigError(
            f"--steps {config.steps}: ddim in strides of {stride} would start at timestep "
            f"{(config.steps - 1) * stride} of {num_timesteps}",
            hint=f"Give {num_timesteps // (stride + 1)} or {num_timesteps // stride} steps.",
        )


def build_scheduler(schedule: ScheduleConfig, config: SampleConfig, *, learns_sigma: bool, clips: bool) -> Any:
    """A scheduler of diffusers that gives the numbers of the original samplers, with its tables in float64.

    ``clips``: whether the guess of x_0 is clipped to [-1, 1].
    """
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    betas = noise_betas(schedule)
    common: dict[str, Any] = {"num_train_timesteps": schedule.num_timesteps, "trained_betas": betas.tolist()}
    common["prediction_type"] = schedule.prediction
    if config.sampler == "ddpm":
        variance = "learned_range" if learns_sigma else "fixed_small"
        scheduler = DDPMScheduler(**common, clip_sample=clips, variance_type=variance, timestep_spacing="linspace")
    elif config.sampler == "ddim":
        scheduler = DDIMScheduler(**common, clip_sample=clips, timestep_spacing="leading", set_alpha_to_one=True)
    else:
        scheduler = DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", timestep_spacing="linspace")
    scheduler.betas, scheduler.alphas = betas, 1 - betas
    scheduler.alphas_cumprod = (1 - betas).cumprod(0)
    scheduler.set_timesteps(config.steps)
    return scheduler
