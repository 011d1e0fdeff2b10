"""The noise schedule of the backbone's pre-training, as tables over the timesteps.

Letters: B batch, T timesteps. x_0 is the clean sample, x_t the noised one, abar_t the product of all 1 - beta_s with
s <= t. Tables are computed in float64 and kept in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import LevelRule, ScheduleConfig
from .levels import noise_shares
from .loss import denoising_loss
from .process import Loss, Process, equal_parts

_MAX_BETA = 0.999


def noise_betas(config: ScheduleConfig) -> Tensor:
    """The noise variances beta_t for t = 0..T-1, (T,) float64.

    The schedule is linear (Ho et al. 2020), scaled_linear, which is linear in sqrt(beta) (Rombach et al. 2022), or
    cosine (Nichol and Dhariwal 2021, Eq. 17). With zero terminal SNR it is rescaled, so that the last beta is 1.
    """
    betas = _plain_betas(config)
    return _end_in_noise(betas) if config.zero_terminal_snr else betas


def _plain_betas(config: ScheduleConfig) -> Tensor:
    count = config.num_timesteps
    if config.kind == "linear":
        return torch.linspace(config.beta_start, config.beta_end, count, dtype=torch.float64)
    if config.kind == "scaled_linear":
        return torch.linspace(config.beta_start**0.5, config.beta_end**0.5, count, dtype=torch.float64).square()
    edges = torch.arange(count + 1, dtype=torch.float64) / count
    # abar(s) = cos^2((s + 0.008) / 1.008 * pi / 2) up to a factor that cancels in the ratio
    alpha_bar = torch.cos((edges + 0.008) / 1.008 * math.pi / 2).square()
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=_MAX_BETA)


def _end_in_noise(betas: Tensor) -> Tensor:
    """Betas whose last timestep is pure noise (Lin et al. 2023, Algorithm 1).

    sqrt(abar_t) is moved down by its last value, and stretched so that its first value stays.
    """
    root = (1 - betas).cumprod(0).sqrt()
    kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    return 1 - torch.cat([kept[:1], kept[1:] / kept[:-1]])


class Schedule(Process):
    """The DDPM of a noise schedule: its tables over the timesteps, on one device."""

    def __init__(self, config: ScheduleConfig, *, device: torch.device | str = "cpu") -> None:
        betas = noise_betas(config)
        alphas = 1 - betas
        kept = alphas.cumprod(0)  # abar_t
        kept_before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        # Variance of q(x_{t-1} | x_t, x_0): beta_t (1 - abar_{t-1}) / (1 - abar_t). The first is 0 and has no log: the
        # second takes its place.
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
        self._ends_in_noise = bool(config.zero_terminal_snr)
        self._tables = {name: table.to(device=device, dtype=torch.float32) for name, table in tables.items()}

    def at(self, name: str, timesteps: Tensor, like: Tensor) -> Tensor:
        """Values of the table ``name`` at ``timesteps`` (B,), shaped to broadcast over ``like`` (B, ...)."""
        return self._tables[name][timesteps].view(-1, *[1] * (like.dim() - 1)).to(like.dtype)

    def levels(self, shares: Tensor) -> Tensor:
        return (shares.double() * self.num_timesteps).long().clamp(max=self.num_timesteps - 1)

    def training_levels(self, uniform: Tensor, rule: LevelRule | None = None) -> Tensor:
        if rule is not None and not rule.is_plain:
            return self.levels(noise_shares(uniform, rule))
        return (uniform * self.num_timesteps).long()

    def edges(self, bands: int) -> tuple[int, ...]:
        return equal_parts(bands, self.num_timesteps)

    def loss(self, prediction: Tensor, *, x0: Tensor, xt: Tensor, noise: Tensor, timesteps: Tensor) -> Loss:
        return denoising_loss(prediction, x0=x0, xt=xt, noise=noise, timesteps=timesteps, schedule=self)

    def add_noise(self, x0: Tensor, *, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noise x_0 (B, ...): x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise."""
        return self.at("signal", timesteps, x0) * x0 + self.at("noise", timesteps, x0) * noise

    def target(self, x0: Tensor, *, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of the prediction: the noise, x_0, or v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0."""
        if self.prediction != "v_prediction":
            return noise if self.prediction == "epsilon" else x0
        return self.at("signal", timesteps, x0) * noise - self.at("noise", timesteps, x0) * x0

    def epsilon(self, prediction: Tensor, *, xt: Tensor, timesteps: Tensor) -> Tensor:
        """The noise that a prediction implies: of v, sqrt(abar_t) v + sqrt(1 - abar_t) x_t."""
        if self.prediction == "epsilon":
            return prediction
        signal, noise = self.at("signal", timesteps, xt), self.at("noise", timesteps, xt)
        if self.prediction == "sample":
            return (xt - signal * prediction) / noise
        return signal * prediction + noise * xt

    def clean(self, prediction: Tensor, *, xt: Tensor, timesteps: Tensor) -> Tensor:
        """The x_0 that a prediction implies: by the noise, or of v, sqrt(abar_t) x_t - sqrt(1 - abar_t) v."""
        if self.prediction == "sample":
            return prediction
        signal, noise = self.at("signal", timesteps, xt), self.at("noise", timesteps, xt)
        if self._ends_in_noise:  # where the last signal is 0; else by the noise, as it was always computed
            return signal * xt - noise * prediction
        return (xt - noise * self.epsilon(prediction, xt=xt, timesteps=timesteps)) / signal
