"""The supported families of backbones, and which of them a weight file holds. A new family gets its name here."""

from __future__ import annotations

from typing import Any, Protocol

from ..config import BackboneHints
from ..errors import CheckpointError, ConfigError
from ..storage import Weights
from . import dit_stock, dit_weights, unet
from .auraflow import AuraFlow
from .base import Backbone
from .cogview4 import CogView4
from .flux import Flux
from .hunyuandit import HunyuanDiT
from .lumina2 import Lumina2
from .pixart import PixArt
from .qwenimage import QwenImage
from .sana import Sana
from .sd3 import SD3
from .transformer import Transformer, TransformerFamily
from .zimage import ZImage


class Family(Protocol):
    """What the registry asks of a family: a module, or an object for a class of Transformer."""

    def recognises(self, weights: Weights) -> bool: ...

    def read_sizes(self, weights: Weights, hints: BackboneHints) -> dict[str, Any]: ...

    def build(self, weights: Weights, hints: BackboneHints) -> Backbone: ...

    def build_empty(self, sizes: dict[str, Any], *, source: object = ...) -> Backbone: ...


FAMILIES: dict[str, Family] = {"dit": dit_weights, "unet": unet}
ABOUT = "docs/families.md"
BY_HAND = "docs/by-hand.md"
HOW_TO_ADD = "docs/adding-a-family.md"
_NEEDED = ("family", "classes", "embedder_at", "features_at")  # attributes without a default


def register_family(kind: type[Transformer]) -> type[Transformer]:
    """Make a family of transformers known to all commands and functions, under its own name; it gives ``kind`` back.

    Raises:
        ConfigError: the name or a class of diffusers is known already, or an attribute that has no default is missing.
    """
    missing = [name for name in _NEEDED if not hasattr(kind, name)]
    missing += ["flow_sampler"] if kind.trained_as is not None and kind.flow_sampler is None else []
    if missing:
        raise ConfigError(f"{kind.__name__} does not say its {', '.join(missing)}", hint=f"See {HOW_TO_ADD}.")
    if kind.family in FAMILIES:
        raise ConfigError(f"a family {kind.family} is known already", hint="Give this one another name.")
    for other in _transformers():
        if taken := sorted({*other.classes} & {*kind.classes}):
            raise ConfigError(f"{', '.join(taken)} belongs to the family {other.family} already")
    FAMILIES[kind.family] = TransformerFamily(kind)
    return kind


def _transformers() -> list[type[Transformer]]:
    return [family.kind for family in FAMILIES.values() if isinstance(family, TransformerFamily)]


for _kind in (PixArt, SD3, Flux, AuraFlow, Lumina2, Sana, HunyuanDiT, ZImage, QwenImage, CogView4):
    register_family(_kind)


def recognise(weights: Weights) -> str:
    """The name of the family that ``weights`` belong to. Raises CheckpointError if it is not supported."""
    for name, family in FAMILIES.items():
        if family.recognises(weights):
            return name
    about = weights.config.get("_class_name") if weights.config else ", ".join(sorted(weights.tensors)[:4]) + ", …"
    raise CheckpointError(
        f"{weights.path} belongs to an unknown family: {about}",
        hint=f"Known families: {', '.join(FAMILIES)}. How to add one is said in {ABOUT}; {BY_HAND} says how to patch a "
        "model by hand, for training in Python.",
    )


def build_from(weights: Weights, hints: BackboneHints) -> Backbone:
    """Load the backbone that ``weights`` hold: strictly, in float32, in eval mode. Raises CheckpointError."""
    return FAMILIES[recognise(weights)].build(weights, hints)


def wrap(model: Any) -> Backbone:
    """A model of diffusers as a backbone. Raises CheckpointError if its class or its config is not supported."""
    name = type(model).__name__
    for kind in _transformers():
        if name in kind.classes:
            return TransformerFamily(kind).wrap(model, source=name)
    if name in unet.UNet.classes:
        unet.check_known(model, source=name)
        return unet.UNet(model)
    if name == dit_weights.DIFFUSERS_CLASS:
        return dit_stock.StockDiT(model)
    known = (
        *unet.UNet.classes,
        *(one for kind in _transformers() for one in kind.classes),
        dit_weights.DIFFUSERS_CLASS,
    )
    raise CheckpointError(
        f"{name} is not a backbone",
        hint=f"Give one of {', '.join(known)}, or what dmp_cli.load_backbone returns; how to add a family is said in "
        f"{ABOUT}.",
    )
