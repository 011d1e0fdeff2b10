"""The noise schedule and the loss of the backbone's own pre-training: noise MSE, plus the variance bound where learned.

Letters: B batch, T timesteps. x_0 is the clean latent, x_t the noised one. Tables are float64, results float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .config import ScheduleConfig

_MAX_BETA = 0.999
_HALF_BIN = 1 / 255  # half of one of the 256 levels of [-1, 1]


class Loss(NamedTuple):
    """Per-sample losses (B,): what is trained, and its two parts."""

    total: Tensor
    mse: Tensor
    bound: Tensor  # zero where sigma is not learned


def noise_betas(config: ScheduleConfig) -> Tensor:
    """beta_t for t = 0..T-1, (T,) float64: linear (Ho et al. 2020), scaled_linear (linear in sqrt(beta): Rombach et al.

    2022), or cosine (Nichol and Dhariwal 2021, Eq. 17).
    """
    count = config.num_timesteps
    if config.kind == "linear":
        return torch.linspace(config.beta_start, config.beta_end, count, dtype=torch.float64)
    if config.kind == "scaled_linear":
        return torch.linspace(config.beta_start**0.5, config.beta_end**0.5, count, dtype=torch.float64).square()
    edges = torch.arange(count + 1, dtype=torch.float64) / count
    alpha_bar = torch.cos((edges + 0.008) / 1.008 * math.pi / 2).square()
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=_MAX_BETA)


class Schedule:
    """Tables over the timesteps, on one device."""

    def __init__(self, config: ScheduleConfig, *, device: torch.device | str = "cpu") -> None:
        betas = noise_betas(config)
        alphas = 1 - betas
        kept = alphas.cumprod(0)  # alpha-bar_t
        kept_before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        # q(x_{t-1} | x_t, x_0): variance beta_t (1 - abar_{t-1}) / (1 - abar_t); the first, 0, takes the second's log
        variance = betas * (1 - kept_before) / (1 - kept)
        tables = {
            "signal": kept.sqrt(),
            "noise": (1 - kept).sqrt(),
            "log_variance": torch.cat([variance[1:2], variance[1:]]).log(),
            "log_beta": betas.log(),
            "mean_x0": betas * kept_before.sqrt() / (1 - kept),
            "mean_xt": (1 - kept_before) * alphas.sqrt() / (1 - kept),
        }
        self.num_timesteps, self.prediction = config.num_timesteps, config.prediction
        self._tables = {name: table.to(device=device, dtype=torch.float32) for name, table in tables.items()}

    def at(self, name: str, timesteps: Tensor, like: Tensor) -> Tensor:
        """A table's values at ``timesteps`` (B,), shaped to broadcast over ``like`` (B, ...)."""
        return self._tables[name][timesteps].view(-1, *[1] * (like.dim() - 1)).to(like.dtype)

    def add_noise(self, x0: Tensor, *, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise."""
        return self.at("signal", timesteps, x0) * x0 + self.at("noise", timesteps, x0) * noise

    def target(self, x0: Tensor, *, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What is to be predicted: the noise, or v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0."""
        if self.prediction == "epsilon":
            return noise
        return self.at("signal", timesteps, x0) * noise - self.at("noise", timesteps, x0) * x0

    def epsilon(self, prediction: Tensor, *, xt: Tensor, timesteps: Tensor) -> Tensor:
        """The noise that a prediction stands for: itself, or sqrt(abar_t) v + sqrt(1 - abar_t) x_t."""
        if self.prediction == "epsilon":
            return prediction
        return self.at("signal", timesteps, xt) * prediction + self.at("noise", timesteps, xt) * xt


def denoising_loss(
    prediction: Tensor, *, x0: Tensor, xt: Tensor, noise: Tensor, timesteps: Tensor, schedule: Schedule
) -> Loss:
    """Loss of one prediction, in float32. An output of twice the channels carries a learned variance.

    MSE of the noise (or v); with learned sigma plus T/1000 of the variance bound, mean detached (Nichol and Dhariwal
    2021).
    """
    prediction = prediction if prediction.dtype == torch.float64 else prediction.float()
    target = schedule.target(x0, noise=noise, timesteps=timesteps)
    if prediction.shape[1] == x0.shape[1]:
        mse = _mean(prediction - target, power=2)
        return Loss(mse, mse, torch.zeros_like(mse))
    predicted, variance = prediction.chunk(2, dim=1)
    mse = _mean(predicted - target, power=2)
    epsilon = schedule.epsilon(predicted.detach(), xt=xt, timesteps=timesteps)
    bound = variance_bound(epsilon, variance, x0=x0, xt=xt, timesteps=timesteps, schedule=schedule)
    bound = bound * (schedule.num_timesteps / 1000)
    return Loss(mse + bound, mse, bound)


def variance_bound(
    epsilon: Tensor, variance: Tensor, *, x0: Tensor, xt: Tensor, timesteps: Tensor, schedule: Schedule
) -> Tensor:
    """L_t of the variational bound in bits per dimension, (B,); at t = 0 the discretised likelihood of x_0.

    ``variance`` v interpolates the log variance: frac log beta_t + (1 - frac) log beta~_t with frac = (v + 1) / 2.
    """

    def at(name: str) -> Tensor:
        return schedule.at(name, timesteps, x0)

    fraction = (variance + 1) / 2
    low = at("log_variance")
    log_variance = fraction * at("log_beta") + (1 - fraction) * low
    predicted_x0 = (xt - at("noise") * epsilon) / at("signal")
    # the means differ in their x_0 part only
    distance = at("mean_x0") * (x0 - predicted_x0)
    divergence = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + distance.square() * (-log_variance).exp())
    mean = at("mean_x0") * predicted_x0 + at("mean_xt") * xt
    likelihood = discretised_log_likelihood(x0, mean=mean, log_std=0.5 * log_variance)
    bound = torch.where(timesteps == 0, -_mean(likelihood), _mean(divergence))
    return bound / math.log(2)


def discretised_log_likelihood(x: Tensor, *, mean: Tensor, log_std: Tensor) -> Tensor:
    """log of the Gaussian's mass in the one of 256 bins of [-1, 1] that ``x`` lies in; the outer bins are open."""
    above, below = ((x - mean + side * _HALF_BIN) * (-log_std).exp() for side in (1, -1))
    up, down = _normal_cdf(above), _normal_cdf(below)
    mass = torch.where(x < -0.999, up, torch.where(x > 0.999, 1 - down, up - down))
    return mass.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    # The tanh approximation that such backbones were pre-trained with.
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mean(values: Tensor, *, power: int = 1) -> Tensor:
    """Mean over everything but the batch."""
    return values.pow(power).flatten(1).mean(1)
