"""Flow matching: an interpolant between data and noise, and the velocity along it (SiT, Ma et al. 2024; REPA, Yu 2024).

x_t = a(t) x_0 + s(t) noise, with a level t in [0, 1] and the velocity a'(t) x_0 + s'(t) noise. All formulas hold in
both directions of time: SiT's t is 0 at noise and 1 at data, REPA's is 0 at data and 1 at noise. Letters: B batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import LevelRule, ScheduleConfig
from .levels import noise_shares
from .process import Loss, Process, exact_type

_VP = (0.1, 20.0)  # beta at the data's end and at the noise's end, of the interpolant vp
_TRAIN_EPS = {"vp": 1e-5}  # how far training stays from the ends where a formula divides by zero there
_EPS = 1e-3  # of other interpolants in training, and of all in sampling


class Coefficients(NamedTuple):
    """An interpolant at some levels: a and s, and their derivatives by t."""

    signal: Tensor
    noise: Tensor
    signal_rate: Tensor
    noise_rate: Tensor


class Flow(Process):
    """A flow over levels in [0, 1], in float64 where it matters and else in the type of the samples."""

    def __init__(self, config: ScheduleConfig) -> None:
        assert config.flow is not None
        self.config, self.num_timesteps, self.prediction = config, config.num_timesteps, config.prediction
        self.is_forward = config.flow == "sit"  # whether time runs from noise to data

    def coefficients(self, levels: Tensor) -> Coefficients:
        """a, s, a' and s' at ``levels``, each of their shape, in float64 (on MPS float32)."""
        t = levels.to(exact_type(levels.device))
        u = t if self.is_forward else 1 - t  # SiT's time: 1 at data
        if self.config.kind == "linear":  # a = u, s = 1 - u
            found = (u, 1 - u, torch.ones_like(u), -torch.ones_like(u))
        elif self.config.kind == "cosine":  # a = sin(pi u / 2), s = cos(pi u / 2)
            angle = u * math.pi / 2
            found = (angle.sin(), angle.cos(), angle.cos() * math.pi / 2, -angle.sin() * math.pi / 2)
        else:  # log a = -(1 - u)^2 (b_1 - b_0) / 4 - (1 - u) b_0 / 2, a^2 + s^2 = 1
            low, high = _VP
            log = -((1 - u) ** 2) * (high - low) / 4 - (1 - u) * low / 2
            rate = (1 - u) * (high - low) / 2 + low / 2
            noise = (-torch.expm1(2 * log)).sqrt()
            found = (log.exp(), noise, log.exp() * rate, -(2 * log).exp() * rate / noise)
        sign = 1 if self.is_forward else -1
        return Coefficients(found[0], found[1], sign * found[2], sign * found[3])

    def _at(self, levels: Tensor, like: Tensor) -> Coefficients:
        """The coefficients at ``levels`` (B,), shaped to broadcast over ``like`` (B, ...) and in its type."""
        shape = (-1, *[1] * (like.dim() - 1))
        return Coefficients(*(value.view(shape).to(like.dtype) for value in self.coefficients(levels)))

    def levels(self, shares: Tensor) -> Tensor:
        low, high = self.training_ends  # of SiT's time
        u = high - shares.double() * (high - low)
        return (u if self.is_forward else 1 - u).float()

    def training_levels(self, uniform: Tensor, rule: LevelRule | None = None) -> Tensor:
        """Uniform over the levels, as both train; t = low + uniform (high - low) in the backbone's own time."""
        if rule is not None and not rule.is_plain:
            return self.levels(noise_shares(1 - uniform if self.is_forward else uniform, rule))
        low, high = self.training_ends
        ends = (low, high) if self.is_forward else (1 - high, 1 - low)
        return (ends[0] + uniform.double() * (ends[1] - ends[0])).float()

    @property
    def training_ends(self) -> tuple[float, float]:
        """The ends of SiT's time in training. They stay off where noise or score leave the velocity open, as SiT's."""
        eps = _TRAIN_EPS.get(self.config.kind, _EPS)
        if self.config.kind == "vp":
            return 0.0, 1 - eps
        return (0.0, 1.0) if self.prediction == "velocity" else (eps, 1 - eps)

    def sampling_ends(self, *, last_step: float | None) -> tuple[float, float]:
        """The ends of SiT's time in sampling; ``last_step`` is the length of an SDE's last step, None: of an ODE."""
        is_plain = self.prediction == "velocity" and self.config.kind != "vp"
        low = 0.0 if self.prediction == "velocity" or self.config.kind == "vp" else _EPS
        if last_step is not None:
            return low, 1 - last_step
        return low, 1.0 if is_plain else 1 - _EPS

    def add_noise(self, x0: Tensor, *, noise: Tensor, timesteps: Tensor) -> Tensor:
        at = self._at(timesteps, x0)
        return at.signal * x0 + at.noise * noise

    def target(self, x0: Tensor, *, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of the prediction: the velocity, the noise, or the score -noise / s."""
        at = self._at(timesteps, x0)
        if self.prediction == "velocity":
            return at.signal_rate * x0 + at.noise_rate * noise
        return noise if self.prediction == "epsilon" else -noise / at.noise

    def loss(self, prediction: Tensor, *, x0: Tensor, xt: Tensor, noise: Tensor, timesteps: Tensor) -> Loss:
        """The mean squared error of the velocity or of the noise; of a score it is multiplied by s, as SiT's.

        Of 2C channels the first C count: SiT's public weights have a second half that was never trained.
        """
        found = prediction if prediction.dtype == torch.float64 else prediction.float()
        error = found[:, : x0.shape[1]]
        if self.prediction == "score":  # |s score + noise|^2
            error = self._at(timesteps, x0).noise * error + noise
        else:
            error = error - self.target(x0, noise=noise, timesteps=timesteps)
        mse = error.square().flatten(1).mean(1)
        return Loss(mse, mse, torch.zeros_like(mse))

    def edges(self, bands: int) -> tuple[float, ...]:
        shares = [band / bands for band in range(bands + 1)]
        return tuple(round(1 - share, 12) if self.is_forward else share for share in shares)

    def velocity(self, prediction: Tensor, *, xt: Tensor, level: Tensor) -> Tensor:
        """The velocity that a prediction implies at one level: with r = a'/a, r x + (r s^2 - s s') score."""
        at = self.coefficients(level)
        if self.prediction == "velocity":
            return prediction
        ratio = at.signal_rate / at.signal
        if self.prediction == "epsilon":  # score = -noise / s
            return ratio * xt + (at.noise_rate - ratio * at.noise) * prediction
        return ratio * xt + (ratio * at.noise**2 - at.noise * at.noise_rate) * prediction

    def score(self, velocity: Tensor, *, xt: Tensor, level: Tensor) -> Tensor:
        """The score that a velocity implies: with q = a/a', (q v - x) / (s^2 - q s' s)."""
        at = self.coefficients(level)
        ratio = at.signal / at.signal_rate
        return (ratio * velocity - xt) / (at.noise**2 - ratio * at.noise_rate * at.noise)
