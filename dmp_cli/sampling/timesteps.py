"""The timesteps of a sampler that is asked for by name, or not at all."""

from __future__ import annotations

from ..backbones import Backbone
from ..config import SampleConfig
from .defaults import default_sampler, default_steps
from .sampler import with_own_scheduler
from .scheduler import check_steps
from .visited import read_by_network


def visited_timesteps(wanted: SampleConfig, backbone: Backbone) -> tuple[SampleConfig, list[int] | list[float]]:
    """``wanted`` with sampler and steps filled in, and the timesteps or levels at which the network is then called.

    Raises:
        ConfigError: the sampler or its number of steps does not fit the backbone.
    """
    own, flow = backbone.own_sampling, backbone.schedule.flow
    steps = default_steps(wanted, own, None, flow=flow)
    wanted = wanted.model_copy(update={**default_sampler(wanted, own, None, flow=flow), **steps})
    wanted = with_own_scheduler(wanted, own, flow=backbone.flow_sampler)
    check_steps(wanted, backbone.schedule)
    return wanted, read_by_network(wanted, backbone)
