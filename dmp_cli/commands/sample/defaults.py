"""Defaults of ``dmp sample`` that depend on the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...config import DEFAULT_CHUNK, SampleConfig
from .own_sampler import default_sampler, default_steps

if TYPE_CHECKING:
    from ...backbones import Backbone

_TEXT_GUIDANCE, _CLASS_GUIDANCE = 7.5, 1.5  # as the pipelines of Stable Diffusion; as the paper's setting


def fill_in(wanted: SampleConfig, backbone: Backbone, recorded: dict[str, Any] | None) -> SampleConfig:
    """Defaults that depend on the backbone, on -n, and on the chunks that an earlier call has fixed."""
    own, flow = backbone.own_sampling, backbone.schedule.flow
    changes: dict[str, Any] = default_sampler(wanted, own, recorded, flow=flow)
    changes |= default_steps(wanted, own, recorded, flow=flow)
    if "guidance" not in wanted.model_fields_set:
        guided = _TEXT_GUIDANCE if backbone.takes_text else _CLASS_GUIDANCE
        changes["guidance"] = guided if backbone.has_null else backbone.embedded_guidance or 1.0
    if "guidance_channels" not in wanted.model_fields_set:
        by_three = backbone.family == "dit" and backbone.sample_shape[0] == 4 and backbone.schedule.flow != "repa"
        changes["guidance_channels"] = "3" if by_three else "all"
    if "batch_size" not in wanted.model_fields_set:
        earlier = (recorded or {}).get("made", {}).get("sample", {}).get("batch_size")
        changes["batch_size"] = earlier or min(DEFAULT_CHUNK, wanted.num_images)
    return wanted.model_copy(update=changes)
