"""Model folders of diffusers: where a denoiser's config and weights are, and the pipeline that it is part of.

Only JSON files are read here; ``weights`` reads the tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CheckpointError
from .legacy_configs import modern_config
from .model_files import find_model_files
from .structured import read_object

_PIPELINE, _CONFIG, _SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
_DENOISERS = ("transformer", "unet")
MODEL_STEM = "diffusion_pytorch_model"  # the weight files of diffusers' models begin so
_OF_ACCELERATE = ("model.safetensors", "pytorch_model.bin", "pytorch_model/mp_rank_00_model_states.pt")


class DiffusersFolder(NamedTuple):
    """A denoiser's folder: its config is read, its weights are not."""

    path: Path
    config: dict[str, Any]
    weight_files: list[Path]  # one, or its shards
    scheduler: dict[str, Any] | None  # config of the noise schedule; None: there is none
    pipeline: Path | None  # the pipeline's folder; None: the denoiser is part of none


def open_diffusers(folder: Path) -> DiffusersFolder:
    """The denoiser in ``folder``, which is the denoiser's own folder or that of a pipeline.

    Raises:
        CheckpointError: its config or weights are missing, or a config cannot be read.
    """
    folder, pipeline = _find_denoiser(folder)
    found = find_model_files(folder, MODEL_STEM)
    if not (folder / _CONFIG).exists() or found is None:
        state = next((folder / name for name in _OF_ACCELERATE if (folder / name).exists()), None)
        raise CheckpointError(
            f"{folder} is not a diffusers model folder: it lacks {_CONFIG} or {MODEL_STEM}.safetensors",
            hint=f"It looks like a folder of accelerate: give its file {state}."
            if state
            else "Give the folder that save_pretrained wrote, or the pipeline folder around it.",
        )
    config = modern_config(_read_config(folder / _CONFIG), source=folder)
    return DiffusersFolder(folder, config, found.files, _scheduler_of(folder, pipeline), pipeline)


def peek_config(path: Path) -> dict[str, Any] | None:
    """The config.json of a diffusers folder, without its weights; None for anything else."""
    path = Path(path)
    file = _find_denoiser(path)[0] / _CONFIG
    return modern_config(_read_config(file), source=path) if path.is_dir() and file.exists() else None


def peek_pipeline(path: Path) -> tuple[dict[str, Any], str] | None:
    """The config of the scheduler of the pipeline at ``path`` or around it, and the pipeline's class where it says one.

    None: there is no pipeline, or it has no scheduler.
    """
    if not path.is_dir():
        return None
    folder, pipeline = _find_denoiser(path)
    scheduler = _scheduler_of(folder, pipeline)
    if pipeline is None or scheduler is None:
        return None
    try:
        return scheduler, str(_read_config(pipeline / _PIPELINE).get("_class_name"))
    except CheckpointError:  # nothing else of this file is read
        return scheduler, ""


def _scheduler_of(folder: Path, pipeline: Path | None) -> dict[str, Any] | None:
    schedulers = [(pipeline or folder) / "scheduler" / _SCHEDULER, folder / _SCHEDULER]
    return next((_read_config(file) for file in schedulers if file.exists()), None)


def _find_denoiser(folder: Path) -> tuple[Path, Path | None]:
    """The folder of the denoiser itself, and the folder of the pipeline around it; None: there is no pipeline.

    A checkpoint of diffusers' training scripts is no pipeline, but has the denoiser's folder, and its average's.
    """
    pipeline = next((place for place in (folder, folder.parent) if (place / _PIPELINE).exists()), None)
    if pipeline == folder:
        own = [folder / name for name in _DENOISERS if (folder / name / _CONFIG).exists()]
        folder = own[0] if own else folder / _DENOISERS[0]
    elif not (folder / _CONFIG).exists():
        inner = [folder / f"{name}{average}" for average in ("_ema", "") for name in _DENOISERS]
        folder = next((place for place in inner if (place / _CONFIG).exists()), folder)
    return folder, pipeline


def _read_config(path: Path) -> dict[str, Any]:
    return read_object(path, kind=CheckpointError)
