"""The timesteps or levels at which a sampler calls the network."""

from __future__ import annotations

from typing import Any

from ..backbones import Backbone
from ..config import SampleConfig
from .flow import read_levels
from .rectified import build_rectified
from .scheduler import build_scheduler


def read_by_network(config: SampleConfig, backbone: Backbone) -> list[int] | list[float]:
    """All of them in order, each as the number that the network reads; ``config`` must come from ``resolve``."""
    if backbone.schedule.flow == "rectified":
        return levels_of(build_rectified(config, backbone))
    if backbone.schedule.flow is not None:
        return read_levels(config, backbone.schedule)
    return timesteps_of(build_scheduler(backbone.schedule, config, learns_sigma=backbone.learns_sigma, clips=False))


def levels_of(scheduler: Any) -> list[float]:
    """The levels of a rectified flow at which the network is called, each as the float32 that it reads."""
    return [float(level) for level in scheduler.timesteps / scheduler.config.num_train_timesteps]


def timesteps_of(scheduler: Any) -> list[int] | list[float]:
    """A scheduler's timesteps as the network is given them: ints where all are whole, else what float32 holds."""
    numbers = [float(timestep) for timestep in scheduler.timesteps]
    return [int(number) for number in numbers] if all(number.is_integer() for number in numbers) else numbers
