"""The samplers of SiT and REPA: their ODE by Euler and Heun, and their SDE by Euler-Maruyama.

The state is float64, as REPA's (on MPS float32); the backbone reads float32. The SDE adds sqrt(2 w) of noise, where w
is s(t) in SiT ("sigma") and t in REPA. It ends with one step along its mean, of length 0.04. Letters: B images.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from ..config import FLOW_SAMPLERS, SampleConfig, ScheduleConfig
from ..diffusion import Flow, exact_type
from ..errors import ConfigError

_LAST_STEP = 0.04  # of the SDE, in both


def check_kind(config: SampleConfig, schedule: ScheduleConfig) -> None:
    """Raise ConfigError for a DDPM's sampler of a flow, the other way round, or too few steps of an SDE."""
    of_flows = {name for names in FLOW_SAMPLERS.values() for name in names}
    own = None if schedule.flow is None else FLOW_SAMPLERS[schedule.flow]
    if own is None and config.sampler in of_flows - {"pipeline"}:
        raise ConfigError(
            f"--sampler {config.sampler} is for a flow, and this backbone predicts the noise or v of a DDPM",
            hint="Give ddpm, ddim or dpm++; or, for weights of SiT or REPA, --objective sit or repa.",
        )
    if own is not None and config.sampler not in own:
        what = "is for another kind of flow" if config.sampler in of_flows else "removes the noise of a DDPM"
        raise ConfigError(
            f"--sampler {config.sampler} {what}, and this backbone is a flow ({schedule.flow})",
            hint=f"Give {', '.join(own[:-1])} or {own[-1]}.",
        )
    if config.sampler == "sde-euler" and config.steps < 2:
        raise ConfigError(f"--steps {config.steps}: sde-euler takes at least 2, of which the last adds no noise")


def visited_levels(config: SampleConfig, schedule: ScheduleConfig) -> Tensor:
    """The levels from noise to data in float64, (steps + 1,): step k goes from level k to level k + 1."""
    flow = Flow(schedule)
    if config.sampler == "sde-euler":
        low, high = flow.sampling_ends(last_step=_LAST_STEP)
        u = torch.cat([torch.linspace(low, high, config.steps, dtype=torch.float64), torch.ones(1).double()])
    else:
        u = torch.linspace(*flow.sampling_ends(last_step=None), config.steps + 1, dtype=torch.float64)
    return u if flow.is_forward else 1 - u


def read_levels(config: SampleConfig, schedule: ScheduleConfig) -> list[float]:
    """The levels at which the backbone is called, in the order of the first call, each as the float32 that it reads."""
    levels = visited_levels(config, schedule)
    read = levels if _corrects_last(config, schedule) else levels[:-1]
    return [float(level) for level in read.float()]


def _corrects_last(config: SampleConfig, schedule: ScheduleConfig) -> bool:
    """Whether the last step of Heun has its second call too: it has in SiT, and has not in REPA."""
    return config.sampler == "ode-heun" and schedule.flow == "sit"


def integrate(
    x: Tensor,
    *,
    predict: Callable[[Tensor, float], Tensor],
    draw: Callable[[int], Tensor],
    config: SampleConfig,
    schedule: ScheduleConfig,
) -> Tensor:
    """Follow the flow from pure noise ``x`` (B, C, H, W) to data, in float64; the result is float32.

    ``predict`` gives the prediction of the backbone (B, C', H, W) for float32 samples at a level; ``draw`` gives the
    noise (B, C, H, W) of a step of the SDE.
    """
    flow, levels, state = Flow(schedule), visited_levels(config, schedule), x.to(exact_type(x.device))

    def velocity(at: Tensor, level: Tensor) -> Tensor:
        found = predict(at.float(), float(level.float()))[:, : x.shape[1]].to(at.dtype)
        return flow.velocity(found, xt=at, level=level)

    for step, (level, following) in enumerate(itertools.pairwise(levels)):
        span, is_last = following - level, step == config.steps - 1
        slope = velocity(state, level)
        if config.sampler == "sde-euler":
            state = _sde_step(state, slope, flow=flow, level=level, span=span, noise=None if is_last else draw(step))
            continue
        ahead = state + span * slope
        if config.sampler == "ode-heun" and (not is_last or _corrects_last(config, schedule)):
            ahead = state + span * (slope + velocity(ahead, following)) / 2
        state = ahead
    return state.float()


def _sde_step(x: Tensor, velocity: Tensor, *, flow: Flow, level: Tensor, span: Tensor, noise: Tensor | None) -> Tensor:
    """One step of Euler-Maruyama: x + v dt + w score |dt| + sqrt(2 w |dt|) noise; without ``noise`` its mean."""
    diffusion = flow.coefficients(level).noise if flow.is_forward else level
    mean = x + velocity * span + diffusion * span.abs() * flow.score(velocity, xt=x, level=level)
    return mean if noise is None else mean + (2 * diffusion * span.abs()).sqrt() * noise.to(x.dtype)
