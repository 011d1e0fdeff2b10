"""What a run writes into its config.json: the options as they were given, and what they came to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import PatchConfig, absolute_place, build, level_rule
from ...errors import ConfigError
from .sample_grids import layout_of

if TYPE_CHECKING:
    from ...pipeline import Loaded
    from ...training import Trainee
    from .job import Request

# What says how a command runs, not what it makes: a continued run takes it anew.
_PASSING = {
    *("resume", "force", "grey", "json_", "verbose", "quiet", "dry_run", "config", "output", "device", "download"),
    *("tensorboard", "track", "measure"),
}
# Options that may name a file. A method or a layer is no file, even where one is called the same.
_PLACES = {"backbone", "checkpoint", "vae", "text", "data", "class_names", "val_data", "store_dir", "text_store_dir"}


def with_recorded_grid(request: Request) -> PatchConfig | None:
    """What patch is asked for, with the grid of prompts of the run that is there where the options leave it open.

    A run that was started before there was a default grid has a prompt for each token.
    """
    config = request.patch_config
    if config is None or request.options.force or "prompt_grid" in config.model_fields_set:
        return config
    try:
        recorded = (request.run.read_settings() or {}).get("patch")
    except ConfigError:  # said where the settings are compared
        recorded = None
    if recorded is None:
        return config
    return build(PatchConfig, **{**config.model_dump(exclude_unset=True), "prompt_grid": recorded.get("prompt_grid")})


def settings_of(request: Request, loaded: Loaded, trainee: Trainee) -> dict[str, Any]:
    """The resolved config.json: what was asked for, and what it came to."""
    from ...patching import PatchedBackbone

    record, patch = loaded.backbone.record, request.patch_config
    if patch is not None and isinstance(trainee.denoiser, PatchedBackbone):
        patch = patch.model_copy(update={"prompt_grid": trainee.denoiser.patch.config.prompt_grid})
    rule = level_rule(request.config, loaded.backbone.level_rule)
    goes_on = request.options.resume
    return {
        "options": {key: _absolute(key, value) for key, value in request.said.items() if key not in _PASSING},
        "train": request.config.model_dump(mode="json"),
        "patch": patch and patch.model_dump(mode="json"),
        "backbone": record.model_dump(exclude={"source"}) if record else {"sizes": loaded.backbone.sizes},
        "codec": loaded.codec.record.model_dump(exclude={"source"}),
        "drawn_levels": None if rule.is_plain else rule.model_dump(),
        **layout_of(request.run.read_settings() if goes_on else None),
    }


def _absolute(key: str, value: Any) -> Any:
    """A path as it can be found from any folder; everything else as it is."""
    if key in ("data", "val_data") and value is not None:
        return absolute_place(value)
    from ...backbones import is_name

    if key == "backbone" and is_name(value):  # also where a folder here is called the same
        return value
    if isinstance(value, Path) or (key in _PLACES and isinstance(value, str) and Path(value).exists()):
        return os.path.abspath(value)  # links stay: what they lead to may have no suffix, or move
    return value
