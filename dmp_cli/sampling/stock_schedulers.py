"""Schedulers of diffusers as its own pipelines use them: by a name, or the one that a pipeline's folder states.

Their tables are those that diffusers computes, in float32, so that latents are those of the stock pipeline.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch

from ..config import PipelineSampler, SampleConfig, SamplingRule, ScheduleConfig
from ..errors import ConfigError

_CLASSES = {
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
}
_BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
_NOISY = ("DDPM", "EulerAncestral", "KDPM2Ancestral")  # how classes begin that add noise at every step
_ONE_MORE = ("DPMSolver", "DEIS", "UniPC")  # and those that need one timestep more than they take steps
_OF_DIFFUSERS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError),
    *(NotImplementedError, RuntimeError, TypeError, ValueError),
)


def is_stock(config: SampleConfig) -> bool:
    """Whether the sampler is set up as in diffusers' pipelines; ddpm, ddim and dpm++ follow the original samplers."""
    return config.sampler == "pipeline" or config.sampler in _CLASSES


def build_stock(schedule: ScheduleConfig, config: SampleConfig) -> Any:
    """A scheduler of diffusers over the noise of ``schedule``, its timesteps set.

    ``pipeline`` takes all its settings from ``config.scheduler``. A named one takes what ``schedule`` states of them,
    as ``from_config`` would, and its class's defaults.
    """
    import diffusers

    kind, fields = _class_of(config), _fields_of(schedule, config)
    cls = getattr(diffusers, kind)
    known = inspect.signature(cls.__init__).parameters
    noise = {
        "num_train_timesteps": schedule.num_timesteps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "beta_schedule": _BETAS[schedule.kind],
        "prediction_type": schedule.prediction,
    }
    if schedule.zero_terminal_snr:
        noise["rescale_betas_zero_snr"] = True
        noise = {key: value for key, value in noise.items() if key in known}
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
    scheduler = cls(**noise, **{key: value for key, value in lists.items() if key in known})
    scheduler.set_timesteps(config.steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # else a first timestep that comes twice would begin at its second level
    return scheduler


def check_stock(schedule: ScheduleConfig, config: SampleConfig, *, name: str) -> None:
    """Raise ConfigError for settings or a number of steps that the sampler, called ``name``, cannot take.

    What only diffusers knows is found by drawing a number without a network.
    """
    kind, count, steps = _class_of(config), schedule.num_timesteps, config.steps
    if schedule.zero_terminal_snr and config.sampler != "pipeline" and not _knows_zero_snr(kind):
        raise ConfigError(
            f"--sampler {name}: {kind} of diffusers has no rescale_betas_zero_snr, and the last timestep of this "
            "backbone is pure noise",
            hint="Give --sampler ddim, dpm++, euler, euler-a or unipc.",
        )
    parts = steps + 1 if kind.startswith(_ONE_MORE) else steps
    if parts > count:
        raise ConfigError(f"--steps {steps}: {name} takes at most {count - parts + steps} over {count} timesteps")
    if kind == "PNDMScheduler" and steps < 4 and not _fields_of(schedule, config).get("skip_prk_steps"):
        raise ConfigError(f"--steps {steps}: {name} takes at least 4: it begins with steps of Runge and Kutta")
    try:
        scheduler = build_stock(schedule, config)
        first, stride = float(scheduler.timesteps[0]), count // parts
        if scheduler.config.get("timestep_spacing") == "leading" and parts * stride < 0.9 * count:
            raise ConfigError(
                f"--steps {steps}: {name} in strides of {stride} would start at timestep {first:g} of {count}",
                hint=f"Give {count // (stride + 1) - parts + steps} or {count // stride - parts + steps} steps.",
            )
        if steps == 1 and first < count / 2:
            raise ConfigError(
                f"--steps 1: {name} would start at timestep {first:g} of {count}", hint="Give more steps."
            )
        wrong = [float(t) for t in scheduler.timesteps if not 0 <= float(t) <= count - 1]
        last = _rehearse(scheduler)
    except _OF_DIFFUSERS as error:
        said = str(error).strip().splitlines()
        raise ConfigError(
            f"--steps {steps}: diffusers cannot run {name} so: {said[0] if said else type(error).__name__}",
            hint="Give another number of steps, or another --sampler.",
        ) from error
    if wrong or not math.isfinite(last):
        why = f"its timestep {wrong[0]:g} is not in 0..{count - 1}" if wrong else "its numbers overflow"
        raise ConfigError(f"--steps {steps}: {name} cannot be run so: {why}", hint="Give another number of steps.")


def _knows_zero_snr(kind: str) -> bool:
    import diffusers

    return "rescale_betas_zero_snr" in inspect.signature(getattr(diffusers, kind).__init__).parameters


def _rehearse(scheduler: Any) -> float:
    """Draw one number from a denoiser that predicts a tenth of what it sees."""
    x = torch.ones(1, 1, 1, 1) * scheduler.init_noise_sigma
    source = {"generator": torch.Generator().manual_seed(0)} if draws_noise(scheduler) else {}
    for timestep in scheduler.timesteps:
        output = 0.1 * scheduler.scale_model_input(x, timestep)
        output = torch.cat([output, output], 1) if takes_variance(scheduler) else output
        x = scheduler.step(output, timestep, x, **source).prev_sample
    return float(x.abs().max())


def draws_noise(scheduler: Any) -> bool:
    """Whether the scheduler adds noise as it goes, from the generators that ``step`` is given."""
    sde = str(scheduler.config.get("algorithm_type")).startswith("sde")
    return sde or type(scheduler).__name__.startswith(_NOISY)


def takes_variance(scheduler: Any) -> bool:
    """Whether the scheduler uses a learned variance; all others are given the first half of the channels alone."""
    return scheduler.config.get("variance_type") == "learned_range" and type(scheduler).__name__.startswith("DDPM")


def _class_of(config: SampleConfig) -> str:
    return _own(config).kind if config.sampler == "pipeline" else _CLASSES[config.sampler]


def _fields_of(schedule: ScheduleConfig, config: SampleConfig) -> dict[str, Any]:
    if config.sampler == "pipeline":
        return _own(config).model_dump(exclude={"kind"})
    return (schedule.sampling or SamplingRule()).model_dump()


def _own(config: SampleConfig) -> PipelineSampler:
    if config.scheduler is None:
        raise ConfigError(
            "--sampler pipeline: the weights come from no pipeline folder of diffusers that states its scheduler",
            hint="Name a sampler, such as --sampler ddim --steps 50.",
        )
    return config.scheduler
