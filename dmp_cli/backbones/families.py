"""The supported families of backbones, and which of them a weight file holds. A new family gets one line here."""

from __future__ import annotations

from typing import Any, Protocol

from ..config import BackboneHints
from ..errors import CheckpointError
from ..storage import Weights
from . import dit_stock, dit_weights, unet
from .base import Backbone
from .flux import Flux
from .pixart import PixArt
from .sd3 import SD3
from .transformer import TransformerFamily


class Family(Protocol):
    """What the registry asks of a family: a module, or an object for a class of Transformer."""

    def recognises(self, weights: Weights) -> bool: ...

    def read_sizes(self, weights: Weights, hints: BackboneHints) -> dict[str, Any]: ...

    def build(self, weights: Weights, hints: BackboneHints) -> Backbone: ...

    def build_empty(self, sizes: dict[str, Any], *, source: object = ...) -> Backbone: ...


TRANSFORMERS = (PixArt, SD3, Flux)
FAMILIES: dict[str, Family] = {
    "dit": dit_weights,
    "unet": unet,
    **{kind.family: TransformerFamily(kind) for kind in TRANSFORMERS},
}
ABOUT = "docs/families.md"


def recognise(weights: Weights) -> str:
    """The name of the family that ``weights`` belong to. Raises CheckpointError if it is not supported."""
    for name, family in FAMILIES.items():
        if family.recognises(weights):
            return name
    about = weights.config.get("_class_name") if weights.config else ", ".join(sorted(weights.tensors)[:4]) + ", …"
    raise CheckpointError(
        f"{weights.path} belongs to an unknown family: {about}",
        hint=f"Known families: {', '.join(FAMILIES)}. How to add one is said in {ABOUT}.",
    )


def build_from(weights: Weights, hints: BackboneHints) -> Backbone:
    """Load the backbone that ``weights`` hold: strictly, in float32, in eval mode. Raises CheckpointError."""
    return FAMILIES[recognise(weights)].build(weights, hints)


def wrap(model: Any) -> Backbone:
    """A model of diffusers as a backbone. Raises CheckpointError if its class or its config is not supported."""
    name = type(model).__name__
    for kind in TRANSFORMERS:
        if name in kind.classes:
            return TransformerFamily(kind).wrap(model, source=name)
    if name in unet.UNet.classes:
        unet.check_known(model, source=name)
        return unet.UNet(model)
    if name == dit_weights.DIFFUSERS_CLASS:
        return dit_stock.StockDiT(model)
    known = (*unet.UNet.classes, *(one for kind in TRANSFORMERS for one in kind.classes), dit_weights.DIFFUSERS_CLASS)
    raise CheckpointError(
        f"{name} is not a backbone",
        hint=f"Give one of {', '.join(known)}, or what dmp_cli.load_backbone returns; how to add a family is said in "
        f"{ABOUT}.",
    )
