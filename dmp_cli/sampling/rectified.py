"""The samplers of rectified flows as diffusers' pipelines use them: their levels, and the shift of these.

A scheduler's timesteps are levels times its number of training timesteps.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ..backbones import Backbone, shift_of
from ..config import PipelineSampler, SampleConfig, SchedulerKind
from ..errors import ConfigError
from .stock_schedulers import draws_noise

_EULER: SchedulerKind = "FlowMatchEulerDiscreteScheduler"
_HEUN: SchedulerKind = "FlowMatchHeunDiscreteScheduler"
_NAMED: dict[str, SchedulerKind] = {"flow-euler": _EULER, "flow-heun": _HEUN}


def named_flow(sampler: str, own: PipelineSampler | None) -> PipelineSampler | None:
    """The scheduler of a named sampler of a rectified flow, with the settings of ``own``; None for other samplers."""
    if sampler not in _NAMED:
        return None
    settings = {} if own is None else own.model_dump(exclude={"kind", "use_flow_sigmas", "flow_shift"})
    if own is not None and own.flow_shift is not None:  # of a solver that was set to a flow
        settings["shift"] = own.flow_shift
    return PipelineSampler(kind=_NAMED[sampler], **settings)


def build_rectified(config: SampleConfig, backbone: Backbone) -> Any:
    """The scheduler in ``config``, its timesteps set as the pipeline of the backbone's family sets them."""
    import diffusers

    own = config.scheduler
    assert own is not None, "resolve() fills it in"
    cls, fields = getattr(diffusers, own.kind), own.model_dump(exclude={"kind"})
    if own.kind == _HEUN and own.use_dynamic_shifting:  # it knows a constant shift alone
        fields["shift"] = shift_of(own, backbone.dynamic_shift(own))
    known = inspect.signature(cls.__init__).parameters
    settings = {
        key: list(value) if isinstance(value, tuple) else value for key, value in fields.items() if key in known
    }
    if own.use_flow_sigmas:
        settings["prediction_type"] = "flow_prediction"
    scheduler = cls(num_train_timesteps=backbone.schedule.num_timesteps, **settings)
    if draws_noise(scheduler):
        raise ConfigError(
            f"--sampler pipeline: a {own.kind} that adds noise is not supported for a flow",
            hint="Give --sampler flow-euler.",
        )
    how: dict[str, Any] = {}
    if own.kind == _EULER:
        if backbone.even_levels:
            how["sigmas"] = np.linspace(1.0, 1 / config.steps, config.steps)
        if backbone.whole_timesteps:
            count = backbone.schedule.num_timesteps
            how["sigmas"] = np.linspace(count, 1.0, config.steps).astype(np.int64).astype(np.float32) / count
        if own.use_dynamic_shifting:
            how["mu"] = backbone.dynamic_shift(own)
    scheduler.set_timesteps(config.steps, **how)
    scheduler.set_begin_index(0)
    return scheduler
