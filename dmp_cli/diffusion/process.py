"""What loss, sampling and gates ask of a diffusion, whether it is a DDPM or a flow.

A level says how much noise a sample has, in the units that the backbone reads: whole timesteps 0..T-1 of a DDPM, real
numbers in [0, 1] of a flow. Letters: B batch. x_0 is the clean sample, x_t the noised one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..config import LevelRule, ScheduleConfig

L = TypeVar("L", float, Tensor)


class Loss(NamedTuple):
    """Losses of each sample, (B,): the total that training minimises, and its two parts."""

    total: Tensor
    mse: Tensor
    bound: Tensor  # zero without a learned variance


class Process(ABC):
    """How clean samples become noised ones, and what the backbone learns to predict of them."""

    num_timesteps: int  # of a DDPM; of a flow, of the grid of levels at which gates are looked at

    @abstractmethod
    def levels(self, shares: Tensor) -> Tensor:
        """The levels (B,) at ``shares`` (B,) float64 of the range, each in [0, 1): from no noise to pure noise."""

    @abstractmethod
    def training_levels(self, uniform: Tensor, rule: LevelRule | None = None) -> Tensor:
        """The levels (B,) of a training step, from uniform numbers (B,) in [0, 1); ``rule`` None: all alike."""

    @abstractmethod
    def add_noise(self, x0: Tensor, *, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noise x_0 (B, ...) to x_t at the levels ``timesteps`` (B,)."""

    @abstractmethod
    def loss(self, prediction: Tensor, *, x0: Tensor, xt: Tensor, noise: Tensor, timesteps: Tensor) -> Loss:
        """The loss of the backbone's pre-training, of each sample."""

    @abstractmethod
    def edges(self, bands: int) -> tuple[int | float, ...]:
        """The ends (bands + 1,) of equal parts of the range of levels, low noise first."""


def exact_type(device: torch.device) -> torch.dtype:
    """The type in which formulas are computed on ``device``: float64, or float32 where there is no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def noise_share(level: L, schedule: ScheduleConfig) -> L:
    """Where ``level`` lies in the noise schedule: 0 is its cleanest end, 1 is pure noise."""
    if schedule.flow is None:
        return level / (schedule.num_timesteps - 1)
    return 1 - level if schedule.flow == "sit" else level


def level_grid(schedule: ScheduleConfig, count: int | None = None) -> Tensor:
    """``count`` levels over the whole range, low noise first, (count,); None: as many as there are timesteps."""
    last = schedule.num_timesteps - 1
    if schedule.flow is None:
        places = (
            torch.arange(last + 1) if count is None else torch.linspace(0, last, count, dtype=torch.float64).round()
        )
        return places.long()
    shares = torch.linspace(0, 1, count or schedule.num_timesteps, dtype=torch.float64)
    return (1 - shares if schedule.flow == "sit" else shares).float()


def equal_parts(bands: int, count: int) -> tuple[int, ...]:
    """The first of ``count`` timesteps in each of ``bands`` equal parts, and ``count`` itself."""
    return tuple(math.ceil(band * count / bands) for band in range(bands + 1))
