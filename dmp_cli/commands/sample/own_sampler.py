"""The sampler of the pipeline that weights come from: whether it is the default, and how what is drawn differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ...config import (
    FLOW_SAMPLERS,
    RECTIFIED_STEPS,
    Flow,
    NetworkOptions,
    SampleConfig,
    Sampler,
    ScheduleConfig,
    usual_sampler,
)

if TYPE_CHECKING:
    from ...backbones import OwnSampling, Peeked


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


def compare(own: OwnSampling, config: SampleConfig) -> str:
    """One line: what the stock pipeline does by default, and what is done here."""
    here = "its scheduler" if config.sampler == "pipeline" else config.sampler
    refused = f" ({own.problem})" if own.problem else ""
    channels = " on 3 channels" if config.guidance_channels == "3" and config.guidance != 1 else ""
    return (
        f"the pipeline's own: {own.in_words()}{refused}; here: {here}, {config.steps} steps, "
        f"guidance {config.guidance:g}{channels}"
    )


def peek(network: NetworkOptions, patch: Path | None) -> Peeked | None:
    """What the folder of the backbone says of its pipeline, before weights are read; None: only a load can tell."""
    from ...backbones import peek_own_sampling

    name = network.name or (None if patch is None else backbone_of(patch))
    try:
        return None if name is None else peek_own_sampling(name, network.checkpoint)
    except OSError:  # a name that can be none of a file; the load says so
        return None


def check_early(config: SampleConfig, peeked: Peeked | None) -> None:
    """Check a sampler that was named, and its steps, as far as the folder of the backbone tells.

    Raises:
        ConfigError: --sampler pipeline without a pipeline, or steps that the sampler cannot take.
    """
    from ...sampling import check_steps, with_own_scheduler

    if peeked is None or "sampler" not in config.model_fields_set:
        return
    filled = with_own_scheduler(config, peeked.own)
    if filled.sampler == "pipeline" or peeked.schedule is not None:
        check_steps(filled, peeked.schedule or ScheduleConfig())


def backbone_of(patch: Path) -> str | None:
    """Where the backbone of a patch was; None where that cannot be read, as the load will say."""
    from ...errors import DMPError
    from ...storage import read_header

    try:
        header = json.loads(read_header(patch).metadata.get("dmp.header", "{}"))
        return str(header["backbone"]["source"])
    except (DMPError, ValueError, KeyError, TypeError):
        return None
