"""Which files of a hub repository a backbone needs: the fewest, and pickles only where there is nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from ..storage import model_file_names

_DIFFUSERS, _TRANSFORMERS = ("diffusion_pytorch_model",), ("model", "pytorch_model")
# Folders of a repository, and what the names of their weight files begin with; the root is a model's own folder.
_WEIGHTS = {
    ".": _DIFFUSERS,
    "transformer": _DIFFUSERS,
    "unet": _DIFFUSERS,
    "vae": _DIFFUSERS,
    "text_encoder": _TRANSFORMERS,
    "text_encoder_2": _TRANSFORMERS,
    "text_encoder_3": _TRANSFORMERS,
}
_WHOLE = ("tokenizer", "tokenizer_2", "tokenizer_3")  # small, and of many formats
_CONFIGS = ("config.json", "model_index.json", "scheduler_config.json")

# Always fetched where they exist, so that a snapshot without them is known to be incomplete.
CONFIGS = [
    *("model_index.json", "config.json", "scheduler_config.json", "scheduler/scheduler_config.json"),
    *(f"{part}/config.json" for part in _WEIGHTS if part != "."),
]


def needed_files(names: Iterable[str]) -> list[str]:
    """Of the files ``names`` of a repository, those that a backbone, its codec and its text encoder need."""
    inside: dict[str, list[str]] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        inside.setdefault(str(path.parent), []).append(path.name)
    needed = []
    for folder, own in inside.items():
        if folder in _WHOLE:
            needed += [(folder, name) for name in own]
        elif folder in (*_WEIGHTS, "scheduler"):
            chosen = [name for name in own if name in _CONFIGS]
            found = (model_file_names(own, stem) for stem in _WEIGHTS.get(folder, ()))
            needed += [(folder, name) for name in [*chosen, *next((files for files in found if files), [])]]
    return [name if folder == "." else f"{folder}/{name}" for folder, name in needed]
