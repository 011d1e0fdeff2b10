"""The noise schedule of the backbone's own pre-training, as tables over the timesteps.

Letters: B batch, T timesteps. x_0 is the clean latent, x_t the noised one. Tables are float64, results float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import ScheduleConfig

_MAX_BETA = 0.999


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
