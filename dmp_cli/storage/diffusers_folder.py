"""Model folders of diffusers: where a denoiser's config and weights are, and the pipeline that it is part of.

Only JSON files are read here; ``weights`` reads the tensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CheckpointError

_PIPELINE, _CONFIG, _SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
_DENOISERS = ("transformer", "unet")
_WEIGHTS = tuple(f"diffusion_pytorch_model{suffix}" for suffix in (".safetensors", ".fp16.safetensors", ".bin"))


class DiffusersFolder(NamedTuple):
    """A denoiser's folder: its config is read, its weights are not."""

    path: Path
    config: dict[str, Any]
    weight_file: Path
    scheduler: dict[str, Any] | None  # config of the noise schedule; None: there is none
    pipeline: Path | None  # the pipeline's folder; None: the denoiser is part of none


def open_diffusers(folder: Path) -> DiffusersFolder:
    """The denoiser in ``folder``, which is the denoiser's own folder or that of a pipeline.

    Raises:
        CheckpointError: its config or weights are missing, or a config cannot be read.
    """
    folder, pipeline = _find_denoiser(folder)
    weight_file = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    if not (folder / _CONFIG).exists() or weight_file is None:
        raise CheckpointError(
            f"{folder} is not a diffusers model folder: it lacks {_CONFIG} or {_WEIGHTS[0]}",
            hint="Give the folder that save_pretrained wrote, or the pipeline folder around it.",
        )
    config = _read_config(folder / _CONFIG)
    schedulers = [(pipeline or folder) / "scheduler" / _SCHEDULER, folder / _SCHEDULER]
    scheduler = next((_read_config(file) for file in schedulers if file.exists()), None)
    return DiffusersFolder(folder, config, weight_file, scheduler, pipeline)


def peek_config(path: Path) -> dict[str, Any] | None:
    """The config.json of a diffusers folder, without its weights; None for anything else."""
    path = Path(path)
    file = _find_denoiser(path)[0] / _CONFIG
    return _read_config(file) if path.is_dir() and file.exists() else None


def _find_denoiser(folder: Path) -> tuple[Path, Path | None]:
    """The folder of the denoiser itself, and the folder of the pipeline around it; None: there is no pipeline."""
    pipeline = next((place for place in (folder, folder.parent) if (place / _PIPELINE).exists()), None)
    if pipeline == folder:
        own = [folder / name for name in _DENOISERS if (folder / name / _CONFIG).exists()]
        folder = own[0] if own else folder / _DENOISERS[0]
    return folder, pipeline


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not the config of a model: it holds a {type(config).__name__}")
    return config
