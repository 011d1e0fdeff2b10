"""The sampler of the pipeline that weights come from: what its folder says of it, and how what is drawn differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import NetworkOptions, SampleConfig, ScheduleConfig

if TYPE_CHECKING:
    from ...backbones import OwnSampling, Peeked


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
