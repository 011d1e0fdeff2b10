"""The paper's experiments as options of ``dmp train``; ``docs/method.md`` says where each value comes from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError

_RECIPE: dict[str, Any] = {
    "method": "dmp",
    "batch_size": 128,
    "lr": 1e-4,
    "gate_lr": 1e-3,
    "lr_schedule": "constant",
    "weight_decay": 0.0,
    "balance_importance": 1.0,
    "balance_load": 1.0,
    "ema": 0.0,
    "flip": True,
    "class_dropout": 0.1,
}

# The COCO row's backbone is a text-to-image DiT that was never published: the user names one, such as a PixArt's.
PRESETS: dict[str, dict[str, Any]] = {
    "paper-ffhq-b2": {**_RECIPE, "backbone": "dit-b2", "image_size": 256, "steps": 30_000},
    "paper-ffhq-l2": {**_RECIPE, "backbone": "dit-l2", "image_size": 256, "steps": 50_000, "save_every": 10_000},
    "paper-coco-b2": {**_RECIPE, "image_size": 256, "steps": 40_000},
    "paper-sd15": {**_RECIPE, "backbone": "sd-v1.5", "image_size": 512, "steps": 50_000},
}


def preset_options(name: str) -> Mapping[str, Any]:
    """The options that a preset stands for. Raises ConfigError for a name that is none, with the nearest one."""
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: there is no such preset", hint=nearest(name, PRESETS))
    return PRESETS[name]


def nearest(word: str, known: Iterable[str], *, or_all: bool = True) -> str:
    """A hint that names the known words most like ``word``, or all of them; without ``or_all`` empty then."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Known are {', '.join(known)}." if or_all else ""
