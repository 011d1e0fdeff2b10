"""What a run writes into its config.json: the options as they were given, and what they came to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...pipeline import Loaded
    from .job import Request

# What says how a command runs, not what it makes: a continued run takes it anew.
_PASSING = {
    *("resume", "force", "grey", "json_", "verbose", "quiet", "dry_run", "config", "output", "device", "download"),
    "tensorboard",
}
# Options that may name a file. A method or a layer is no file, even where one is called the same.
_PLACES = {"backbone", "checkpoint", "vae", "text", "data", "class_names", "val_data", "store_dir", "text_store_dir"}


def settings_of(request: Request, loaded: Loaded) -> dict[str, Any]:
    """The resolved config.json: what was asked for, and what it came to."""
    record = loaded.backbone.record
    return {
        "options": {key: _absolute(key, value) for key, value in request.said.items() if key not in _PASSING},
        "train": request.config.model_dump(mode="json"),
        "patch": request.patch_config and request.patch_config.model_dump(mode="json"),
        "backbone": record.model_dump(exclude={"source"}) if record else {"sizes": loaded.backbone.sizes},
        "codec": loaded.codec.record.model_dump(exclude={"source"}),
    }


def _absolute(key: str, value: Any) -> Any:
    """A path as it can be found from any folder; everything else as it is."""
    if isinstance(value, Path) or (key in _PLACES and isinstance(value, str) and Path(value).exists()):
        return os.path.abspath(value)  # links stay: what they lead to may have no suffix, or move
    return value
