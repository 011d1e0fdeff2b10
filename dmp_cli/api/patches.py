"""Patches and what is done with them, as the wing ``patching`` has them; in notebooks they show their gates."""

from ..patching import (
    Patch,
    PatchedBackbone,
    attach,
    create_patch,
    detach,
    draw_with,
    guide,
    load_patch,
    save_patch,
)
from .pictures import draw_gates_of

__all__ = ["Patch", "PatchedBackbone", "attach", "create_patch", "detach", "guide", "load_patch", "save_patch"]

draw_with(draw_gates_of)
