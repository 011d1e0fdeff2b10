"""Patches for diffusion checkpoints: mixture-of-prompts that improve a frozen, converged backbone.

The public names load lazily, so that ``import dmp_cli`` and the command line's ``--help`` import no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .backbones import load_backbone as load_backbone
    from .config import PatchConfig as PatchConfig
    from .engine import attach as attach
    from .patchfile import load_patch as load_patch
    from .patchfile import save_patch as save_patch
    from .prompts import Patch as Patch

_HOMES = {
    "load_backbone": "backbones",
    "Patch": "prompts",
    "PatchConfig": "config",
    "attach": "engine",
    "load_patch": "patchfile",
    "save_patch": "patchfile",
}
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
