"""Build backbones without their weights, to count parameters, to train from scratch, or to check options early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..config import BackboneHints, build, sides_of
from ..errors import CheckpointError, ConfigError
from ..storage import Weights, peek_config, read_object, read_weights
from . import dit_weights
from .base import Backbone
from .claims import building, check_sizes
from .dit_sizes import DiTConfig
from .families import FAMILIES, recognise
from .names import Known, named_sizes
from .native_file import read_header
from .original_sd import converted
from .sources import EMBEDDED


def peek_backbone(name: str, checkpoint: Path | None = None) -> Backbone | None:
    """Build the backbone of a diffusers folder or a name on ``meta``, without reading its weights.

    Gives None where only the weights tell the sizes. That is so for every DiT: a name such as dit-b2 tells neither the
    image size nor the number of classes.
    """
    path = Path(name) if checkpoint is None else Path(checkpoint)
    config = peek_config(path) if path.is_dir() else None
    weights = Weights({}, {}, config, path)
    for key, family in FAMILIES.items():
        if config is not None and key != "dit" and family.recognises(weights):
            check_sizes(config, source=path)
            with building(path), torch.device("meta"):
                return family.build_empty(family.read_sizes(weights, BackboneHints()), source=path)
    named = named_sizes(name) if config is None else None
    return build_backbone(name) if named is not None and named.family != "dit" else None


def is_size_name(name: str) -> bool:
    """Whether ``name`` tells a backbone's sizes: dit-s2 … dit-xl8, sd-v1.5, sdxl, or a ``.json`` file of sizes."""
    return named_sizes(name) is not None or name.endswith(".json")


def build_backbone(name: str, *, device: str = "meta", **changes: Any) -> Backbone:
    """Build a backbone without its weights: on ``meta`` to count parameters, on a real device to train from scratch.

    ``name`` is a registry name, a ``.json`` file of sizes, or a weight file. ``changes`` replace single sizes
    (``num_classes``, ``input_size``, ``in_channels``); those that are None change nothing.

    Raises:
        CheckpointError: the file is missing, damaged or of an unknown family, or its sizes are invalid.
        ConfigError: a size cannot be changed, or the changed sizes are invalid.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    known = _known_sizes(name)
    if known.family != "dit":
        side = given.pop("input_size", None)
        if given:
            raise ConfigError(f"--{min(given).replace('_', '-')} cannot be changed: the sizes of {name} are fixed")
        check_sizes(known.sizes, source=name)
        with building(name), torch.device(device):
            backbone: Backbone = FAMILIES[known.family].build_empty(known.sizes)
        if side is not None:
            backbone.resize(*sides_of(side))
        return backbone
    if not isinstance(given.get("input_size", 0), int):
        raise ConfigError(f"--image-size: {name} makes square images only", hint="Give one side, such as 256.")
    if "num_classes" in given:
        given["null_row"] = given["num_classes"] > 1
    sizes = build(DiTConfig, **{**known.sizes, **given}).model_dump()
    check_sizes(sizes, source=name)
    with torch.device(device):
        return dit_weights.build_empty(sizes)


def _known_sizes(name: str) -> Known:
    named = named_sizes(name)
    if named is not None:
        return named
    path = EMBEDDED.get(name, Path(name))
    if path.suffix == ".json" and path.exists():
        try:
            return Known("dit", build(DiTConfig, **read_object(path, kind=CheckpointError)).model_dump())
        except (ConfigError, TypeError) as error:
            raise CheckpointError(f"{path} is not a JSON file of sizes: {error}") from error
    weights = converted(read_weights(path))
    own = read_header(weights, families=FAMILIES)
    if own is not None:
        return Known(own.family, own.sizes)
    family = recognise(weights)
    return Known(family, FAMILIES[family].read_sizes(weights, BackboneHints(trained_with="meta")))
