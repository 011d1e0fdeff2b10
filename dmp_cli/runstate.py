"""What a resume needs, saved as one unit: a folder per checkpoint that appears by one rename, its manifest inside.

Random state is not part of it: all noise, timesteps and data order are functions of (seed, step, index).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from . import files
from .errors import CheckpointError

_MANIFEST = "manifest.json"
Tensors = dict[str, Tensor]


@dataclass
class RunState:
    """One moment of a run: everything that later steps depend on."""

    step: int  # steps done
    learnt: Tensors
    helpers: Tensors  # trained beside it, such as W_noise
    optimizer: Tensors
    ema: Tensors = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)  # fp16 loss scaling; empty otherwise


def save_state(folder: Path, state: RunState, *, keep: int) -> Path:
    """Write ``folder/step-NNNNNNNN`` whole or not at all, then drop all but the ``keep`` newest."""
    folder = Path(folder)
    target = folder / f"step-{state.step:08d}"
    if not target.exists():
        with files.staged_folder(target) as staged:
            digests = {}
            for name in ("learnt", "helpers", "optimizer", "ema"):
                data = files.safetensors_bytes(getattr(state, name), {})
                files.write_bytes(staged / f"{name}.safetensors", data)
                digests[f"{name}.safetensors"] = hashlib.sha256(data).hexdigest()
            manifest = {"step": state.step, "scaler": state.scaler, "sha256": digests}
            files.write_json(staged / _MANIFEST, manifest)
    for old in list_states(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_states(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in Path(folder).glob("step-*") if path.is_dir() and not path.name.endswith(files.PARTIAL)]
    return sorted(found)


def load_newest(folder: Path, *, warn: Callable[[str], None]) -> RunState | None:
    """The newest checkpoint that is whole; each damaged one before it is named through ``warn``. None: there is none.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
    """
    files.remove_partials(folder)
    paths = list_states(folder)
    for path in reversed(paths):
        try:
            return _load(path)
        except (OSError, ValueError, KeyError, CheckpointError) as error:
            warn(f"checkpoint {path} is damaged ({error}); trying the one before it")
    if paths:
        raise CheckpointError(f"every checkpoint in {folder} is damaged", hint="Start again with --force.")
    return None


def _load(path: Path) -> RunState:
    manifest = json.loads((path / _MANIFEST).read_text())
    for name, digest in manifest["sha256"].items():
        if files.sha256_of(path / name) != digest:
            raise CheckpointError(f"{name} was changed after it was written")
    parts = {name: load_file(path / f"{name}.safetensors") for name in ("learnt", "helpers", "optimizer", "ema")}
    return RunState(step=manifest["step"], scaler=manifest["scaler"], **parts)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """An optimizer's state as flat tensors named ``INDEX.KEY``."""
    states = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, state in states.items() for key, value in state.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: Tensors) -> None:
    """The inverse of :func:`pack_optimizer`, into an optimizer over the same parameters."""
    state: dict[int, Tensors] = {}
    for name, value in packed.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
