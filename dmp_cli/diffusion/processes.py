"""The process that a schedule describes: the one place that tells a DDPM from a flow."""

from __future__ import annotations

import torch

from ..config import ScheduleConfig
from .flow import Flow
from .process import Process
from .schedule import Schedule


def make_process(config: ScheduleConfig, *, device: torch.device | str = "cpu") -> Process:
    """The process of ``config``, with its tables on ``device``."""
    return Schedule(config, device=device) if config.flow is None else Flow(config)
