"""The supported families of backbones, and which of them a weight file holds. A new family gets one line here."""

from __future__ import annotations

from types import ModuleType

from ..config import BackboneHints
from ..errors import CheckpointError
from ..storage import Weights
from . import dit_weights, pixart, unet
from .base import Backbone

FAMILIES: dict[str, ModuleType] = {"dit": dit_weights, "unet": unet, "pixart": pixart}


def recognise(weights: Weights) -> str:
    """The name of the family that ``weights`` belong to. Raises CheckpointError if it is not supported."""
    for name, family in FAMILIES.items():
        if family.recognises(weights):
            return name
    about = weights.config.get("_class_name") if weights.config else ", ".join(sorted(weights.tensors)[:4]) + ", …"
    raise CheckpointError(
        f"{weights.path} belongs to an unknown family: {about}", hint=f"Known families: {', '.join(FAMILIES)}."
    )


def build_from(weights: Weights, hints: BackboneHints) -> Backbone:
    """Load the backbone that ``weights`` hold: strictly, in float32, in eval mode. Raises CheckpointError."""
    return FAMILIES[recognise(weights)].build(weights, hints)
