"""Reading weight files of other projects safely, loading them strictly, and the digest that names them.

Nothing is ever loaded by executing it: pickles go through torch's ``weights_only`` reader, in which the harmless config
objects that training scripts leave behind (argparse, OmegaConf) become inert stand-ins.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import CheckpointError

SAFETENSORS = (".safetensors",)
PICKLES = (".pt", ".pth", ".ckpt", ".bin")
_PIPELINE, _SCHEDULER = "model_index.json", "scheduler_config.json"
_DENOISERS = ("transformer", "unet")
_WRAPPERS = ("ema", "model", "state_dict")  # where a training checkpoint keeps its weights; first found wins
_PREFIXES = ("_orig_mod.", "module.")  # left by torch.compile and DDP
PATCH_NAMES = ("prompt_embeddings", "gate.weight", "gate.bias")  # the patch in a checkpoint of the paper's authors
NOISE_NAME = "w_noise"  # and what its training kept beside it
_HARMLESS_MODULES = ("omegaconf.", "pathlib.")
_HARMLESS_NAMES = {
    "argparse.Namespace",
    "types.SimpleNamespace",
    "typing.Any",
    "collections.OrderedDict",
    "collections.defaultdict",
    "numpy.dtype",  # of a best loss or a step count kept as a numpy number
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "set", "frozenset", "int", "float", "bool", "str")),
}


@dataclass(frozen=True)
class Weights:
    """What a weight file holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]  # of a safetensors file; empty for a pickle
    config: dict[str, Any] | None  # config.json of a diffusers folder; None for a single file
    scheduler: dict[str, Any] | None = field(default=None, kw_only=True)  # of the pipeline it is part of
    pipeline: Path | None = field(default=None, kw_only=True)  # the folder of the pipeline it is part of
    path: Path
    patch: dict[str, Tensor] = field(default_factory=dict)  # the authors' patch, taken out of ``tensors``


def read_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, a torch pickle, or a diffusers folder: a denoiser's, or the pipeline's.

    Raises:
        CheckpointError: missing, damaged, unsafe, or of an unknown kind.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", hint="Check the path given as --backbone or --checkpoint.")
    if path.is_dir():
        return _read_diffusers(path)
    if path.suffix.lower() in SAFETENSORS:
        tensors, metadata = read_safetensors(path)
        return _of_file(tensors, metadata, path)
    if path.suffix.lower() in PICKLES:
        return _of_file(_unwrap(_read_pickle(path), path), {}, path)
    raise CheckpointError(
        f"{path} is no weight file: its name ends in none of {', '.join((*SAFETENSORS, *PICKLES))}",
        hint="Give a Meta-style DiT checkpoint (.pt), a .safetensors file or a diffusers folder.",
    )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file: {error}",
            hint="It is cut, damaged, or another kind of file under this name; fetch or copy it again.",
        ) from error


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Put ``tensors`` into ``module`` as float32; a missing, unexpected or misshapen one stops before the first is set.

    Raises:
        CheckpointError: lists all three kinds.
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    misshapen = [
        f"{name}: {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
    if any(names for _, names in problems):
        raise CheckpointError(
            f"{source} does not fit the backbone; nothing was loaded\n"
            + "\n".join(f"  {kind} ({len(names)}): {_first(names)}" for kind, names in problems if names),
            hint="Give the checkpoint of this very backbone, or let its sizes be read from the file alone.",
        )
    # Copies, because what was read may be a view of the file: overwriting that file would change the module under way.
    own = {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in tensors.items()}
    module.load_state_dict(own, strict=True, assign=True)


def digest_tensors(tensors: Mapping[str, Tensor], *, without: Iterable[str] = ()) -> str:
    """SHA-256 over names, shapes, types and values, in the order of names: equal for equal weights in any container."""
    digest = hashlib.sha256()
    for name in sorted(tensors.keys() - set(without)):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_diffusers(folder: Path) -> Weights:
    folder, pipeline = _find_denoiser(folder)
    config_file = folder / "config.json"
    files = [folder / f"diffusion_pytorch_model{suffix}" for suffix in (".safetensors", ".fp16.safetensors", ".bin")]
    weight_file = next((file for file in files if file.exists()), None)
    if not config_file.exists() or weight_file is None:
        raise CheckpointError(
            f"{folder} is no diffusers model folder: it lacks config.json or {files[0].name}",
            hint="Give the folder that save_pretrained wrote, or the pipeline folder around it.",
        )
    config = _read_config(config_file)
    schedulers = [(pipeline or folder) / "scheduler" / _SCHEDULER, folder / _SCHEDULER]
    scheduler = next((_read_config(file) for file in schedulers if file.exists()), None)
    if weight_file.suffix in SAFETENSORS:
        tensors = read_safetensors(weight_file)[0]
    else:
        tensors = _unwrap(_read_pickle(weight_file), weight_file)
    return Weights(tensors, {}, config, folder, scheduler=scheduler, pipeline=pipeline)


def peek_config(path: Path) -> dict[str, Any] | None:
    """The config.json of a diffusers folder, its weights left alone; None for anything else."""
    path = Path(path)
    file = _find_denoiser(path)[0] / "config.json"
    return _read_config(file) if path.is_dir() and file.exists() else None


def _find_denoiser(folder: Path) -> tuple[Path, Path | None]:
    """The folder of the denoiser itself, and that of the pipeline around it; None: there is none."""
    pipeline = next((place for place in (folder, folder.parent) if (place / _PIPELINE).exists()), None)
    if pipeline == folder:
        own = [folder / name for name in _DENOISERS if (folder / name / "config.json").exists()]
        folder = own[0] if own else folder / _DENOISERS[0]
    return folder, pipeline


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is no model's config: it holds a {type(config).__name__}")
    return config


class _StandIn(dict[Any, Any]):
    """Takes the place of a config object in a pickle: keeps its state, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _stand_in_for(name: str) -> Any:
    # torch's reader fills plain dicts only; a class of its own each, because a pickle may tell classes apart
    return (lambda *factory: {}) if name == "collections.defaultdict" else type("StandIn", (_StandIn,), {})


def _read_pickle(path: Path) -> Any:
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty", hint="Fetch or copy it again.")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # torch's older format, where names cannot be listed, or damage: the reader below says which
        names = sorted(_HARMLESS_NAMES)
    harmful = [name for name in names if name not in _HARMLESS_NAMES and not name.startswith(_HARMLESS_MODULES)]
    if harmful:
        raise _would_run_code(path, harmful)
    stand_ins: list[Any] = [(_stand_in_for(name), name) for name in names]
    try:
        with torch.serialization.safe_globals(stand_ins):
            # Mapped, so that the optimizer's share of a training checkpoint is never read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch reports damage as RuntimeError, EOFError, UnpicklingError, KeyError, ...
        raise _unreadable(path, error) from error


def _would_run_code(path: Path, names: Iterable[str]) -> CheckpointError:
    return CheckpointError(
        f"{path} wants to run code when it is loaded ({', '.join(sorted(names))}); refused",
        hint="If you trust its maker, save its weights alone: torch.save(module.state_dict(), ...) or safetensors.",
    )


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, pickle.UnpicklingError):  # its text tells users to load the file by executing it
        if name := re.search(r"GLOBAL ([\w.]+)", str(error)):
            return _would_run_code(path, [name[1]])
        reason = "it is no pickle of plain tensors"
    else:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"{path} cannot be read as a torch checkpoint: {reason}",
        hint="It is cut, damaged, or another kind of file (an HTML page or a git-lfs pointer, for example).",
    )


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, dict):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    plain = isinstance(content, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    if not plain or not content:
        kind = f"keys {_first([str(key) for key in content])}" if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} holds no weights: found {kind}",
            hint="Expected tensors by name, bare or under 'ema' or 'model'.",
        )
    return content


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if tensors and all(name.startswith(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _of_file(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path) -> Weights:
    tensors = _strip_prefixes(tensors)
    if not tensors.keys() >= set(PATCH_NAMES):  # a part of a patch is an unexpected tensor like any other
        return Weights(tensors, metadata, None, path)
    patch = {name: tensors.pop(name) for name in (*PATCH_NAMES, NOISE_NAME) if name in tensors}
    return Weights(tensors, metadata, None, path, patch)


def _first(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown}, … and {len(names) - limit} more" if len(names) > limit else shown
