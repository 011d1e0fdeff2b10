"""How much the error of a prediction counts at each noise level. Letters: B batch, T timesteps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..config import LossWeight, ScheduleConfig
from ..errors import ConfigError
from .flow import Flow
from .schedule import noise_betas

Weigh = Callable[[Tensor], Tensor]
_LOWEST = 1e-3  # noise share below which sigma-sqrt grows no more: the lowest one of 1,000 timesteps
SNR_GAMMA = 5.0  # of min-snr by default, as its authors recommend


def check_weight(weight: LossWeight, schedule: ScheduleConfig) -> None:
    """Raise ConfigError for a weight of another objective than that of ``schedule``."""
    is_flow, predicted = schedule.flow is not None, schedule.prediction
    what = f"the {predicted} of a {schedule.kind} flow ({schedule.flow})" if is_flow else f"{predicted} of a DDPM"
    fits, whose = {
        "none": (True, ""),
        "min-snr": (not is_flow, "a DDPM"),
        "sigma-sqrt": (
            is_flow and predicted == "velocity" and schedule.kind == "linear",
            "the velocity of a linear flow",
        ),
        "cosmap": (is_flow and predicted == "velocity" and schedule.kind == "linear", "the velocity of a linear flow"),
        "velocity": (is_flow and predicted != "velocity", "a flow that predicts noise or score"),
        "likelihood": (is_flow and predicted != "velocity", "a flow that predicts noise or score"),
    }[weight]
    if not fits:
        raise ConfigError(f"--loss-weight {weight} is for {whose}, and this backbone predicts {what}")


def make_weigh(
    weight: LossWeight, schedule: ScheduleConfig, *, gamma: float = SNR_GAMMA, device: torch.device | str = "cpu"
) -> Weigh | None:
    """The weights (B,) float32 of levels (B,), as a function; None: all are 1. Raises ConfigError; see above."""
    check_weight(weight, schedule)
    if weight == "none":
        return None
    if weight == "min-snr":
        table = _min_snr(schedule, gamma).float().to(device)
        return lambda timesteps: table[timesteps]
    flow = Flow(schedule)
    of_levels = {"sigma-sqrt": _sigma_sqrt, "cosmap": _cosmap, "velocity": _velocity, "likelihood": _likelihood}[weight]
    return lambda timesteps: of_levels(flow, timesteps).float()


def _min_snr(schedule: ScheduleConfig, gamma: float) -> Tensor:
    """min(SNR, gamma) on the error of x_0 (Hang et al. 2023, Section 3.4), for each timestep, (T,) float64.

    The error of the noise is that of x_0 times SNR, and the error of v that times SNR + 1.
    """
    kept = (1 - noise_betas(schedule)).cumprod(0)
    ratio = kept / (1 - kept)
    least = ratio.clamp(max=gamma)
    return least / {"epsilon": ratio, "v_prediction": ratio + 1}.get(schedule.prediction, torch.ones_like(ratio))


def _sigma_sqrt(flow: Flow, levels: Tensor) -> Tensor:
    """1 / s^2, as diffusers' ``compute_loss_weighting_for_sd3``."""
    return flow.coefficients(levels).noise.clamp(min=_LOWEST).pow(-2)


def _cosmap(flow: Flow, levels: Tensor) -> Tensor:
    """2 / (pi (1 - 2 s + 2 s^2)) (Esser et al. 2024, Section 3.1)."""
    s = flow.coefficients(levels).noise
    return 2 / (math.pi * (1 - 2 * s + 2 * s.square()))


def _diffusion(flow: Flow, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The diffusion d = |r s^2 - s s'| with r = a'/a, half of g^2 of the SDE of this path; and s."""
    at = flow.coefficients(levels)
    return (at.signal_rate / at.signal * at.noise.square() - at.noise * at.noise_rate).abs(), at.noise


def _velocity(flow: Flow, levels: Tensor) -> Tensor:
    """(d / s)^2: the error of the noise then counts as that of the velocity it implies (SiT's ``velocity``)."""
    diffusion, noise = _diffusion(flow, levels)
    return (diffusion / noise).square()


def _likelihood(flow: Flow, levels: Tensor) -> Tensor:
    """d / s^2: the error of the score counts with g^2 / 2, as in a bound of the likelihood (SiT's ``likelihood``)."""
    diffusion, noise = _diffusion(flow, levels)
    return diffusion / noise.square()
