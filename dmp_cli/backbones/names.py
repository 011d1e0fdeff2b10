"""Registry names that stand for a backbone of known sizes: dit-s2 … dit-xl8, sd-v1.5, sdxl."""

from __future__ import annotations

from typing import Any, NamedTuple

from .dit_sizes import named_config
from .unet import SD15_SIZES, SDXL_SIZES


class Known(NamedTuple):
    """A family, and the sizes from which an empty backbone of it is built."""

    family: str
    sizes: dict[str, Any]


# Hub repositories with the public weights of a name, in diffusers' format.
PUBLIC_HOMES = {
    "dit-xl2": "facebook/DiT-XL-2-256",
    "sd-v1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
_UNETS = {"sd-v1.5": SD15_SIZES, "sdxl": SDXL_SIZES}


def named_sizes(name: str) -> Known | None:
    """The family and sizes that a registry name stands for; None for any other name."""
    if plain_name(name) in _UNETS:
        return Known("unet", dict(_UNETS[plain_name(name)]))
    config = named_config(name)
    return None if config is None else Known("dit", config.model_dump())


def plain_name(name: str) -> str:
    """The plain spelling of a name: ``dit-xl2`` for ``DiT-XL/2``."""
    return name.lower().replace("/", "")
