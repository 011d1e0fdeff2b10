"""How names of weight files end. Who only looks at a name imports no torch."""

from __future__ import annotations

SAFETENSORS = (".safetensors",)
PICKLES = (".pt", ".pth", ".ckpt", ".bin")
