"""Read a model that no family names from its folder, to be patched by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ImageAt
from ..errors import CheckpointError, ConfigError
from ..storage import Weights, load_strictly
from .base import Backbone
from .by_hand import wrap_by_hand
from .claims import building, check_sizes
from .dry_forward import Shape
from .families import FAMILIES
from .folder_configs import known_fields, passed_over, with_present_names
from .sources import find_weights
from .wrapped import class_of, fields_of


def load_by_hand(
    name: str,
    *,
    block_lists: Sequence[str],
    timestep_module: str | None,
    image_at: Mapping[str, ImageAt] | None = None,
    inputs: Mapping[str, Shape] | None = None,
    checkpoint: Path | None = None,
    download: bool = False,
) -> Backbone:
    """Load a model of diffusers from its folder, in float32 and eval mode, and see what its blocks are given.

    The arguments are those of :func:`wrap_by_hand`, and ``name``, ``checkpoint`` and ``download`` of ``load_backbone``.

    Raises:
        CheckpointError: the weights are missing, damaged or unsafe, or as :func:`wrap_by_hand`.
        ConfigError: a family names the model, or the timestep module is not named.
    """
    found = find_weights(name, checkpoint, download=download)
    weights = found.weights
    family = next((key for key, one in FAMILIES.items() if one.recognises(weights)), None)
    if family is not None:
        raise ConfigError(
            f"--block-lists is for a model that no family names; {weights.path} is of the family {family}",
            hint="Leave it out.",
        )
    model = _build(weights)
    if timestep_module is None:
        raise ConfigError(
            f"which module of {type(model).__name__} embeds the timestep is not known",
            hint=f"Name it with --timestep-module; its parts are {', '.join(dict(model.named_children()))}.",
        )
    backbone = wrap_by_hand(
        model,
        block_lists=block_lists,
        timestep_module=timestep_module,
        image_at=image_at,
        inputs=inputs,
        source=found.source,
    )
    assert weights.config is not None
    backbone.remarks = passed_over(weights.config, fields_of(class_of(weights)), source=weights.path)
    return backbone


def _build(weights: Weights) -> Any:
    """The model that these weights are of, with them in it."""
    import diffusers

    name = class_of(weights)
    kind = getattr(diffusers, str(name), None) if weights.config else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise CheckpointError(
            f"{weights.path} says no model of diffusers: {name}",
            hint="Patching by hand needs the model's folder, with the config.json that diffusers has written.",
        )
    assert weights.config is not None
    check_sizes(weights.config, source=weights.path)
    fields = known_fields(weights.config, fields_of(name))
    with building(weights.path):
        with torch.device("meta"):
            model: Any = kind(**fields)
        if _has_tables(model):
            model = kind(**fields)
    load_strictly(model, with_present_names(weights.tensors, model.state_dict().keys()), source=weights.path)
    return model.eval()


def _has_tables(model: nn.Module) -> bool:
    """Whether a model holds tensors that no file holds, such as tables of positions: none has values on ``meta``."""
    kept = model.state_dict(keep_vars=True).keys()
    if any(name not in kept for name, _ in model.named_buffers()):
        return True
    values = [value for part in model.modules() for value in vars(part).values()]
    listed = [one for value in values if isinstance(value, (list, tuple)) for one in value]
    return any(isinstance(one, Tensor) for one in (*values, *listed))
