"""Names that stand for a backbone of known sizes: dit-s2 … dit-xl8, sd-v1.5."""

from __future__ import annotations

from typing import Any, NamedTuple

from .dit import named_config
from .unet import SD15_SIZES


class Known(NamedTuple):
    """A family, and the sizes that rebuild an empty backbone of it."""

    family: str
    sizes: dict[str, Any]


# Repositories that hold the public weights of a name in diffusers' container.
PUBLIC_HOMES = {"dit-xl2": "facebook/DiT-XL-2-256", "sd-v1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}


def named_sizes(name: str) -> Known | None:
    """Family and sizes of a registry name; None for any other name."""
    if plain_name(name) == "sd-v1.5":
        return Known("unet", dict(SD15_SIZES))
    config = named_config(name)
    return None if config is None else Known("dit", config.model_dump())


def plain_name(name: str) -> str:
    """One spelling for ``DiT-XL/2`` and ``dit-xl2``."""
    return name.lower().replace("/", "")
