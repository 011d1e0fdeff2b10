"""``dmp env``: what a report of a fault needs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path

import psutil
import typer

from ..config import CommonOptions
from ..version import __version__
from .console import Printer
from .options import Given, takes

_LIBRARIES = (
    *("torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "safetensors", "clean-fid", "numpy"),
    *("pillow", "pydantic", "typer", "rich", "filelock", "optuna", "torchao", "bitsandbytes", "torch-fidelity"),
)
_VARIABLES = re.compile(r"(DMP|HF|CUDA|NCCL|SLURM|OMP|TORCH|PYTORCH)_\w+|RANK|LOCAL_RANK|WORLD_SIZE|NO_COLOR")
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD")


@takes(first=("json_",), examples=("dmp env", "dmp env --json"))
def env(ctx: typer.Context, given: Given) -> None:
    """Print what a report of a fault needs: versions, devices, memory and folders.

    Values of variables that look like secrets are not shown.
    """
    common = given.make(CommonOptions)
    printer = Printer(common)
    if common.dry_run:
        printer.plan({})
        return
    told = {
        "dmp": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name)) is not None},
        "devices": _devices(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "folders": _folders(),
        "variables": {name: _shown(name, value) for name, value in sorted(os.environ.items()) if _is_ours(name)},
    }
    for name, value in told.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items()) or "none"
        printer.say(f"{name:<12}{value if not isinstance(value, list) else ', '.join(value)}")
    printer.result(told)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """What there is to compute on; of a GPU with its memory and the versions of CUDA."""
    import torch

    found = ["cpu"]
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} {about.name} {about.total_memory / (1 << 30):.0f} GiB (CUDA {torch.version.cuda})")
    return found + (["mps"] if torch.backends.mps.is_available() else [])


def _folders() -> dict[str, str]:
    """The folders that dmp writes to unasked, and the one it is called in, with the free space of each."""
    from ..storage import cache_folder, home_folder

    places = {"here": Path.cwd(), "home": home_folder(), "cache": cache_folder()}
    return {name: f"{path} ({_free(path)} GiB free)" for name, path in places.items()}


def _free(path: Path | None) -> str:
    there = None if path is None else next((one for one in (path, *path.parents) if one.exists()), None)
    return "?" if there is None else f"{shutil.disk_usage(there).free / (1 << 30):.0f}"


def _is_ours(name: str) -> bool:
    return _VARIABLES.fullmatch(name) is not None


def _shown(name: str, value: str) -> str:
    return "(not shown)" if _SECRET.search(name) else value
