"""Registry names that stand for a backbone of known sizes: dit-s2 … dit-xl8, sd-v1.5, sdxl, sd3-medium, flux-dev, …"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .auraflow import AURAFLOW_SIZES
from .cogview4 import COGVIEW4_SIZES
from .dit_sizes import named_config
from .flux import FLUX_DEV_SIZES, FLUX_SCHNELL_SIZES
from .hunyuandit import HUNYUAN_11_SIZES, HUNYUAN_12_SIZES
from .lumina2 import LUMINA2_SIZES
from .pixart import SIGMA_SIZES
from .qwenimage import QWEN_IMAGE_SIZES
from .sana import SANA_600M_SIZES, SANA_1600M_SIZES
from .sd3 import SD3_SIZES, SD35_LARGE_SIZES, SD35_MEDIUM_SIZES
from .unet import SD15_SIZES, SDXL_SIZES
from .zimage import Z_IMAGE_SIZES


class Known(NamedTuple):
    """A family, and the sizes from which an empty backbone of it is built."""

    family: str
    sizes: dict[str, Any]


# Hub repositories with the public weights of a name, in diffusers' format.
PUBLIC_HOMES = {
    "dit-xl2": "facebook/DiT-XL-2-256",
    "sd-v1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
    "sd3.5-medium": "stabilityai/stable-diffusion-3.5-medium",
    "sd3.5-large": "stabilityai/stable-diffusion-3.5-large",
    "flux-dev": "black-forest-labs/FLUX.1-dev",
    "flux-schnell": "black-forest-labs/FLUX.1-schnell",
    "pixart-sigma": "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    "sana-1600m": "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
    "sana-600m": "Efficient-Large-Model/Sana_600M_1024px_diffusers",
    "lumina2": "Alpha-VLLM/Lumina-Image-2.0",
    "auraflow": "fal/AuraFlow",
    "cogview4": "THUDM/CogView4-6B",
    "qwen-image": "Qwen/Qwen-Image",
    "hunyuan-dit-1.1": "Tencent-Hunyuan/HunyuanDiT-v1.1-Diffusers",
    "hunyuan-dit-1.2": "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
    "z-image-turbo": "Tongyi-MAI/Z-Image-Turbo",
}


def public_home(name: str) -> str | None:
    """The hub repository with the public weights of a registry name; None: there is none."""
    return PUBLIC_HOMES.get(plain_name(name))


_KNOWN = {
    "sd-v1.5": Known("unet", SD15_SIZES),
    "sdxl": Known("unet", SDXL_SIZES),
    "sd3-medium": Known("sd3", SD3_SIZES),
    "sd3.5-medium": Known("sd3", SD35_MEDIUM_SIZES),
    "sd3.5-large": Known("sd3", SD35_LARGE_SIZES),
    "flux-dev": Known("flux", FLUX_DEV_SIZES),
    "flux-schnell": Known("flux", FLUX_SCHNELL_SIZES),
    "pixart-sigma": Known("pixart", SIGMA_SIZES),
    "sana-1600m": Known("sana", SANA_1600M_SIZES),
    "sana-600m": Known("sana", SANA_600M_SIZES),
    "lumina2": Known("lumina2", LUMINA2_SIZES),
    "auraflow": Known("auraflow", AURAFLOW_SIZES),
    "cogview4": Known("cogview4", COGVIEW4_SIZES),
    "qwen-image": Known("qwenimage", QWEN_IMAGE_SIZES),
    "hunyuan-dit-1.1": Known("hunyuandit", HUNYUAN_11_SIZES),
    "hunyuan-dit-1.2": Known("hunyuandit", HUNYUAN_12_SIZES),
    "z-image-turbo": Known("zimage", Z_IMAGE_SIZES),
}


def named_sizes(name: str) -> Known | None:
    """The family and sizes that a registry name stands for; None for any other name.

    A folder or file that is here and is called nearly the same, such as Qwen-Image, is no name; in the plain spelling
    the name wins.
    """
    if name.endswith("/") or (name != plain_name(name) and Path(name).exists()):
        return None
    found = _KNOWN.get(plain_name(name))
    if found is not None:
        return Known(found.family, dict(found.sizes))
    config = named_config(name)
    return None if config is None else Known("dit", config.model_dump())


def plain_name(name: str) -> str:
    """The plain spelling of a name: ``dit-xl2`` for ``DiT-XL/2``."""
    return name.lower().replace("/", "")
