"""Schedulers of diffusers by the names of ``--sampler``, and the numbers of steps that each can take.

ddpm, ddim and dpm++ are set up like the original samplers, here; all others as in diffusers' own pipelines.
"""

from __future__ import annotations

from typing import Any

from ..config import SampleConfig, SamplingRule, ScheduleConfig
from ..diffusion import noise_betas
from ..errors import ConfigError
from .flow import check_kind
from .stock_schedulers import build_stock, check_stock, is_stock

_SPACING = {"ddpm": "linspace", "ddim": "leading", "dpm++": "linspace"}  # of the original samplers
# Fields of a SamplingRule as diffusers' schedulers take them.
_OF_ALL = ("timestep_spacing", "steps_offset", "thresholding", "dynamic_thresholding_ratio", "sample_max_value")
_OF_CLIPPING = ("clip_sample", "clip_sample_range")


def check_steps(config: SampleConfig, schedule: ScheduleConfig) -> None:
    """Raise ConfigError for a sampler of the other kind, or a number of steps that it cannot take.

    So for settings of the pipeline's scheduler that diffusers cannot run.
    """
    check_kind(config, schedule)
    if schedule.flow is not None:
        return
    if is_stock(config):
        named = f"the pipeline's {config.scheduler.kind}" if config.scheduler is not None else config.sampler
        check_stock(schedule, config, name=named)
        return
    num_timesteps = schedule.num_timesteps
    # DPM++ needs one timestep more than it takes steps: two equal timesteps would make it divide by zero.
    limit = num_timesteps - 1 if config.sampler == "dpm++" else num_timesteps
    if config.steps > limit:
        raise ConfigError(
            f"--steps {config.steps}: {config.sampler} takes at most {limit} over {num_timesteps} timesteps"
        )
    rule = schedule.sampling or SamplingRule()
    spacing, offset = _spacing(schedule, config), rule.steps_offset or 0
    # Equal strides down to 0. If they begin far below the last timestep, it cannot start from pure noise.
    stride = num_timesteps // config.steps
    if spacing == "leading" and config.sampler == "ddim" and config.steps * stride < 0.9 * num_timesteps:
        raise ConfigError(
            f"--steps {config.steps}: ddim in strides of {stride} would start at timestep "
            f"{(config.steps - 1) * stride} of {num_timesteps}",
            hint=f"Give {num_timesteps // (stride + 1)} or {num_timesteps // stride} steps.",
        )
    if spacing == "leading" and (config.steps - 1) * stride + offset >= num_timesteps:
        raise ConfigError(
            f"--steps {config.steps}: the pipeline's steps_offset {offset} leads beyond the last of {num_timesteps} "
            "timesteps",
            hint="Give fewer steps.",
        )


def _spacing(schedule: ScheduleConfig, config: SampleConfig) -> str:
    """How timesteps are spaced: as stated, else as originally, but from the last one on where that is pure noise."""
    stated = schedule.sampling and schedule.sampling.timestep_spacing
    plain = "trailing" if schedule.zero_terminal_snr and config.sampler == "ddim" else _SPACING[config.sampler]
    return stated or plain


def build_scheduler(schedule: ScheduleConfig, config: SampleConfig, *, learns_sigma: bool, clips: bool) -> Any:
    """The scheduler that ``config`` names, with its timesteps set.

    ddpm, ddim and dpm++ give the numbers of the original samplers, with tables in float64. What ``schedule`` says about
    sampling comes first. ``clips``: whether the guess of x_0 is clipped to [-1, 1] where it says nothing.
    """
    if is_stock(config):
        return build_stock(schedule, config)
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    betas, rule = noise_betas(schedule), schedule.sampling or SamplingRule()
    common: dict[str, Any] = {"num_train_timesteps": schedule.num_timesteps, "trained_betas": betas.tolist()}
    common |= {"prediction_type": schedule.prediction, "timestep_spacing": _spacing(schedule, config)}
    stated = rule.model_dump()  # without what is None
    common |= {key: stated[key] for key in _OF_ALL if key in stated}
    clipping = {"clip_sample": clips, **{key: stated[key] for key in _OF_CLIPPING if key in stated}}
    if config.sampler == "ddpm":
        variance = rule.variance_type or ("learned_range" if learns_sigma else "fixed_small")
        scheduler = DDPMScheduler(**common, **clipping, variance_type=variance)
    elif config.sampler == "ddim":
        to_one = rule.set_alpha_to_one is not False
        scheduler = DDIMScheduler(**common, **clipping, set_alpha_to_one=to_one)
    else:
        scheduler = DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++")
    scheduler.betas, scheduler.alphas = betas, 1 - betas
    scheduler.alphas_cumprod = (1 - betas).cumprod(0)
    if config.sampler == "dpm++" and schedule.zero_terminal_snr:
        scheduler.alphas_cumprod[-1] = 2**-24  # as in diffusers: its noise levels divide by it
    if config.sampler == "ddim" and not scheduler.config.set_alpha_to_one:
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(config.steps)
    return scheduler
