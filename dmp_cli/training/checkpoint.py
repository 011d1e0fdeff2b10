"""Checkpoints: everything that a resumed run needs, saved as one unit.

A checkpoint is a folder with a manifest. It appears by one rename, so it is either complete or absent. Random state is
not saved: the noise, the timesteps and the data order are functions of (seed, step, index).
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
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ..errors import CheckpointError
from ..storage import (
    PARTIAL,
    check_file,
    check_finite,
    check_types,
    read_object,
    read_safetensors,
    remove_partials,
    safetensors_bytes,
    sha256_of,
    staged_folder,
    write_bytes,
    write_json,
)

_MANIFEST = "manifest.json"
_OPTIMIZER = {"step", "exp_avg", "exp_avg_sq"}  # what AdamW keeps of each parameter
_PARTS = ("learnt", "helpers", "optimizer", "ema")
Tensors = dict[str, Tensor]


class _Manifest(BaseModel):
    """``manifest.json`` of a checkpoint, without its seal, which is a checksum and no signature."""

    model_config = ConfigDict(extra="forbid", strict=True)

    step: int = Field(ge=0, lt=1 << 53)
    scaler: dict[str, int | float]
    sha256: dict[str, str]


@dataclass
class RunState:
    """The state of a run after some step: everything that later steps depend on."""

    step: int  # steps done
    learnt: Tensors
    helpers: Tensors  # trained too, but not part of the learnt file, such as W_noise
    optimizer: Tensors
    ema: Tensors = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)  # state of the fp16 loss scaling; empty for other dtypes


def save_state(folder: Path, state: RunState, *, keep: int) -> Path:
    """Write ``folder/step-NNNNNNNN`` as a whole or not at all; then keep only the ``keep`` newest, this one included.

    Checkpoints of later steps are removed too: they must be damaged, or the run would have continued from them.
    """
    folder = Path(folder)
    target = folder / _name_of(state.step)
    if target.exists() and not _is_whole(target):
        shutil.rmtree(target, ignore_errors=True)
    if not target.exists():
        with staged_folder(target) as staged:
            _write(staged, state)
    found = list_states(folder)
    end = found.index(target) + 1
    for other in [*found[: max(0, end - keep)], *found[end:]]:
        shutil.rmtree(other, ignore_errors=True)
    return target


def _name_of(step: int) -> str:
    return f"step-{step:08d}"


def _write(folder: Path, state: RunState) -> None:
    digests = {}
    for name in _PARTS:
        data = safetensors_bytes(getattr(state, name), {})
        write_bytes(folder / f"{name}.safetensors", data)
        digests[name] = hashlib.sha256(data).hexdigest()
    manifest = {"step": state.step, "scaler": state.scaler, "sha256": digests}
    write_json(folder / _MANIFEST, {**manifest, "seal": _seal(manifest)})


def list_states(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in Path(folder).glob("step-*") if path.is_dir() and not path.name.endswith(PARTIAL)]
    return sorted(found)


def load_newest(folder: Path, *, warn: Callable[[str], None]) -> RunState | None:
    """The newest checkpoint that is not damaged, or None if the folder has no checkpoint.

    ``warn`` is called with a message for each damaged checkpoint that is passed over.

    Raises:
        CheckpointError: all checkpoints in the folder are damaged.
    """
    remove_partials(folder)
    paths = list_states(folder)
    for path in reversed(paths):
        try:
            return _load(path)
        except (CheckpointError, OSError) as error:
            reason = error.message if isinstance(error, CheckpointError) else str(error)
            warn(f"checkpoint {path} is damaged ({reason}); trying the one before it")
    if paths:
        raise CheckpointError(f"every checkpoint in {folder} is damaged", hint="Start again with --force.")
    return None


def _load(path: Path) -> RunState:
    manifest = _check(path)
    if path.name != _name_of(manifest.step):
        raise CheckpointError(f"it says that it is of step {manifest.step}")
    parts = {name: read_safetensors(path / f"{name}.safetensors")[0] for name in _PARTS}
    for name in ("learnt", "helpers", "ema"):
        check_finite(parts[name], source=path / f"{name}.safetensors")
    return RunState(step=manifest.step, scaler=manifest.scaler, **parts)


def _check(path: Path) -> _Manifest:
    """The manifest of a checkpoint, after checking that no byte of it has changed.

    Raises CheckpointError if the checkpoint is incomplete or changed.
    """
    content = read_object(path / _MANIFEST, kind=CheckpointError)
    if content.pop("seal", None) != _seal(content):
        raise CheckpointError(f"{_MANIFEST} was changed after it was written")
    manifest = check_types(_Manifest, content, name=_MANIFEST, kind=CheckpointError)
    for name in _PARTS:
        file = path / f"{name}.safetensors"
        check_file(file, kind=CheckpointError)
        if sha256_of(file) != manifest.sha256.get(name):
            raise CheckpointError(f"{file.name} was changed after it was written")
    return manifest


def _is_whole(path: Path) -> bool:
    try:
        _check(path)
    except (CheckpointError, OSError):
        return False
    return True


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def pack_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """The state of an optimizer as flat tensors, named ``INDEX.KEY`` after the index of the parameter."""
    states = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, state in states.items() for key, value in state.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: Tensors) -> None:
    """Load the tensors of :func:`pack_optimizer` into an AdamW with the same parameters.

    Raises:
        CheckpointError: they are not those of such an optimizer.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, Tensors] = {}
    for name, value in packed.items():
        index, _, key = name.partition(".")
        place = int(index) if index.isdecimal() and len(index) < 10 else len(parameters)
        shape = () if key == "step" else parameters[place].shape if place < len(parameters) else None
        if key not in _OPTIMIZER or value.shape != shape or value.isnan().any():
            raise CheckpointError(f"the checkpoint does not fit this run: its optimizer's {name[:80]}")
        state.setdefault(place, {})[key] = value
    if any(found.keys() != _OPTIMIZER for found in state.values()):
        raise CheckpointError("the checkpoint does not fit this run: its optimizer's state is incomplete")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
