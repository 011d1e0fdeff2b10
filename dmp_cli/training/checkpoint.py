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
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import CheckpointError
from ..storage import PARTIAL, remove_partials, safetensors_bytes, sha256_of, staged_folder, write_bytes, write_json

_MANIFEST = "manifest.json"
_PARTS = ("learnt", "helpers", "optimizer", "ema")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, CheckpointError)
Tensors = dict[str, Tensor]


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
    target = folder / f"step-{state.step:08d}"
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
        except _DAMAGE as error:
            warn(f"checkpoint {path} is damaged ({error}); trying the one before it")
    if paths:
        raise CheckpointError(f"every checkpoint in {folder} is damaged", hint="Start again with --force.")
    return None


def _load(path: Path) -> RunState:
    manifest = _check(path)
    parts = {name: load_file(path / f"{name}.safetensors") for name in _PARTS}
    return RunState(step=manifest["step"], scaler=manifest["scaler"], **parts)


def _check(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after checking that no byte of it has changed.

    Raises one of ``_DAMAGE`` if the checkpoint is incomplete or changed.
    """
    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    if manifest.pop("seal", None) != _seal(manifest):
        raise CheckpointError(f"{_MANIFEST} was changed after it was written")
    for name in _PARTS:
        if sha256_of(path / f"{name}.safetensors") != manifest["sha256"][name]:
            raise CheckpointError(f"{name}.safetensors was changed after it was written")
    return manifest


def _is_whole(path: Path) -> bool:
    try:
        _check(path)
    except _DAMAGE:
        return False
    return True


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def pack_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """The state of an optimizer as flat tensors, named ``INDEX.KEY`` after the index of the parameter."""
    states = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, state in states.items() for key, value in state.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: Tensors) -> None:
    """Load the tensors of :func:`pack_optimizer` into an optimizer with the same parameters."""
    state: dict[int, Tensors] = {}
    for name, value in packed.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
