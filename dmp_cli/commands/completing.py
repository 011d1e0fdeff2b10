"""What the shell offers for the value of an option. A key press waits for it, so nothing heavy is imported here.

Where nothing fits, the shell offers files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

BACKBONES = (
    "digits",
    *(f"dit-{size}{patch}" for size in ("s", "b", "l", "xl") for patch in (2, 4, 8)),
    *("sd-v1.5", "sdxl", "sd3-medium", "sd3.5-medium", "sd3.5-large", "flux-dev", "flux-schnell", "pixart-sigma"),
    *("sana-1600m", "sana-600m", "lumina2", "auraflow", "cogview4", "qwen-image", "hunyuan-dit-1.1", "hunyuan-dit-1.2"),
    "z-image-turbo",
)
FEATURES = ("inception", "clip", "dinov2", "pixels", "digits")
TABLES = ("table2", "table3", "table4", "controls", "guidance")


def _presets() -> list[str]:
    from ..config import PRESETS

    return list(PRESETS)


def _runs() -> list[str]:
    """Folders here, and one below, that hold a run."""
    found = (path.parent for pattern in ("*/log.jsonl", "*/*/log.jsonl") for path in Path().glob(pattern))
    return sorted(path.as_posix() for path in found if (path / "config.json").exists())


_VALUES: dict[str, Callable[[], list[str]]] = {
    "backbone": lambda: list(BACKBONES),
    "features": lambda: list(FEATURES),
    "arms": lambda: list(TABLES),
    "preset": _presets,
    "vae": lambda: ["none"],
    "device": lambda: ["auto", "cpu", "cuda", "mps"],
}


def offered(name: str, *, record: str = "") -> Callable[[str], list[str]] | None:
    """What completes the value of the option ``name`` of a record, or of an argument; None: the shell's own files."""
    values = _runs if (record, name) == ("TrainOptions", "output") else _VALUES.get(name)
    if values is None:
        return None

    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete
