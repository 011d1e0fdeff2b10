"""The loss of the backbone's pre-training: the error of the predicted noise, plus a bound for a learned variance.

Letters: B batch, C channels, T timesteps. x_0 is the clean sample, x_t the noised one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .process import Loss

if TYPE_CHECKING:
    from .schedule import Schedule

_HALF_BIN = 1 / 255  # half the distance of two of the 256 levels in [-1, 1]


def denoising_loss(
    prediction: Tensor, *, x0: Tensor, xt: Tensor, noise: Tensor, timesteps: Tensor, schedule: Schedule
) -> Loss:
    """Compute the loss of one prediction, in float32: the mean squared error of the noise (or of v, or x_0).

    A ``prediction`` with 2C channels, where ``x0`` has C, carries a learned variance. The loss is then L_simple +
    T/1000 L_t, and the bound L_t sends no gradient to what is predicted (Nichol and Dhariwal 2021, Eq. 16).
    """
    prediction = prediction if prediction.dtype == torch.float64 else prediction.float()
    target = schedule.target(x0, noise=noise, timesteps=timesteps)
    if prediction.shape[1] == x0.shape[1]:
        mse = _mean(prediction - target, power=2)
        return Loss(mse, mse, torch.zeros_like(mse))
    predicted, variance = prediction.chunk(2, dim=1)
    mse = _mean(predicted - target, power=2)
    clean = schedule.clean(predicted.detach(), xt=xt, timesteps=timesteps)
    bound = variance_bound(clean, variance, x0=x0, xt=xt, timesteps=timesteps, schedule=schedule)
    bound = bound * (schedule.num_timesteps / 1000)
    return Loss(mse + bound, mse, bound)


def variance_bound(
    clean: Tensor, variance: Tensor, *, x0: Tensor, xt: Tensor, timesteps: Tensor, schedule: Schedule
) -> Tensor:
    """Term t of the variational bound, in bits per dimension, (B,).

    It is the KL divergence between the true and the predicted step; at t = 0 it is the discretised likelihood of x_0.
    ``clean`` is the x_0 that the prediction implies. ``variance`` v sets the log variance
    f log beta_t + (1 - f) log beta~_t with f = (v + 1) / 2 (Nichol and Dhariwal 2021, Eq. 15, where v is in 0..1).
    """

    def at(name: str) -> Tensor:
        return schedule.at(name, timesteps, x0)

    fraction = (variance + 1) / 2
    low = at("log_variance")
    log_variance = fraction * at("log_beta") + (1 - fraction) * low
    # The two means have the same x_t part, so they differ by that of x_0 only.
    distance = at("mean_x0") * (x0 - clean)
    # KL of Gaussians with true variance s, predicted variance r: (log r - log s - 1 + s / r + distance^2 / r) / 2
    divergence = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + distance.square() * (-log_variance).exp())
    mean = at("mean_x0") * clean + at("mean_xt") * xt
    likelihood = discretised_log_likelihood(x0, mean=mean, log_std=0.5 * log_variance)
    bound = torch.where(timesteps == 0, -_mean(likelihood), _mean(divergence))
    return bound / math.log(2)


def discretised_log_likelihood(x: Tensor, *, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log of a Gaussian's probability mass in the bin of ``x``: 256 bins cover [-1, 1], and the outer two are open."""
    above, below = ((x - mean + side * _HALF_BIN) * (-log_std).exp() for side in (1, -1))
    up, down = _normal_cdf(above), _normal_cdf(below)
    mass = torch.where(x < -0.999, up, torch.where(x > 0.999, 1 - down, up - down))
    return mass.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    # The tanh approximation, as in the backbones' pre-training.
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mean(values: Tensor, *, power: int = 1) -> Tensor:
    """Mean of ``values`` to the given power over all axes but the batch: (B, ...) -> (B,)."""
    return values.pow(power).flatten(1).mean(1)
