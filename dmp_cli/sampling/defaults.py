"""What is drawn with where nothing is said: sampler, steps, guidance and chunks, as the backbone has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from ..config import DEFAULT_CHUNK, FLOW_SAMPLERS, RECTIFIED_STEPS, Flow, SampleConfig, Sampler, usual_sampler

if TYPE_CHECKING:
    from ..backbones import Backbone, OwnSampling

_TEXT_GUIDANCE, _CLASS_GUIDANCE = 7.5, 1.5  # as the pipelines of Stable Diffusion; as the paper's setting


def fill_in(wanted: SampleConfig, backbone: Backbone, recorded: dict[str, Any] | None = None) -> SampleConfig:
    """``wanted`` with the defaults that depend on the backbone, and on the number of images.

    ``recorded`` is the record of a folder that is continued: what its images were drawn with is the default there.
    """
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


def default_sampler(
    wanted: SampleConfig, own: OwnSampling | None, recorded: dict[str, Any] | None, *, flow: Flow | None = None
) -> dict[str, Any]:
    """The change to ``wanted`` where it names no sampler: that of the folder's images, else the pipeline's own.

    A pipeline's own that cannot be followed is no default. Without one, a flow has its first: the SDE of SiT and REPA.
    """
    if "sampler" in wanted.model_fields_set:
        return {}
    earlier = (recorded or {}).get("made", {}).get("sample", {}).get("sampler")
    if earlier in get_args(Sampler):
        return {"sampler": earlier}
    usual = usual_sampler(flow) or wanted.sampler
    has_own = own is not None and own.sampler is not None and (flow is None or "pipeline" in FLOW_SAMPLERS[flow])
    return {"sampler": "pipeline" if has_own else usual}


def default_steps(
    wanted: SampleConfig, own: OwnSampling | None, recorded: dict[str, Any] | None, *, flow: Flow | None
) -> dict[str, Any]:
    """The change to ``wanted`` where it names no steps: of a rectified flow those of the folder, else of its pipeline.

    The other backbones keep the one default.
    """
    if flow != "rectified" or "steps" in wanted.model_fields_set:
        return {}
    earlier = (recorded or {}).get("made", {}).get("sample", {}).get("steps")
    if isinstance(earlier, int) and earlier > 0:
        return {"steps": earlier}
    return {"steps": RECTIFIED_STEPS if own is None or own.steps is None else own.steps}
