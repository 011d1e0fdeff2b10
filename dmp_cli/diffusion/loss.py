"""The loss of the backbone's own pre-training: the error of the noise, plus the variance bound where sigma is learned.

Letters: B batch, T timesteps. x_0 is the clean latent, x_t the noised one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .schedule import Schedule

_HALF_BIN = 1 / 255  # half of one of the 256 levels of [-1, 1]


class Loss(NamedTuple):
    """Per-sample losses (B,): what is trained, and its two parts."""

    total: Tensor
    mse: Tensor
    bound: Tensor  # zero where sigma is not learned


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
