"""Reading weight files of other projects safely, loading them strictly, and the digest that identifies them.

Nothing is ever loaded by executing it. Pickles go through torch's ``weights_only`` reader, which puts inert stand-ins
in the place of the harmless config objects that training scripts save beside the weights (argparse, OmegaConf).
"""

from __future__ import annotations

import hashlib
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
from .diffusers_folder import open_diffusers

SAFETENSORS = (".safetensors",)
PICKLES = (".pt", ".pth", ".ckpt", ".bin")
_WRAPPERS = ("ema", "model", "state_dict")  # keys under which training checkpoints keep weights; the first found counts
_PREFIXES = ("_orig_mod.", "module.")  # of names, added by torch.compile and DDP
PATCH_NAMES = ("prompt_embeddings", "gate.weight", "gate.bias")  # the patch, in a checkpoint of the paper's authors
NOISE_NAME = "w_noise"  # another tensor of that patch, used in training only
_HARMLESS_MODULES = ("omegaconf.", "pathlib.")
_HARMLESS_NAMES = {
    "argparse.Namespace",
    "types.SimpleNamespace",
    "typing.Any",
    "collections.OrderedDict",
    "collections.defaultdict",
    "numpy.dtype",  # numpy numbers: a best loss or a step count
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "set", "frozenset", "int", "float", "bool", "str")),
}


@dataclass(frozen=True)
class Weights:
    """The content of a weight file or a diffusers folder."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]  # of a single safetensors file; else empty
    config: dict[str, Any] | None  # config.json of a diffusers folder; None for a single file
    scheduler: dict[str, Any] | None = field(default=None, kw_only=True)  # config of the pipeline's noise schedule
    pipeline: Path | None = field(default=None, kw_only=True)  # folder of the pipeline that the denoiser is part of
    path: Path
    patch: dict[str, Tensor] = field(default_factory=dict)  # the authors' patch, which is not in ``tensors`` then


def read_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, a torch pickle, or the diffusers folder of a denoiser or of a pipeline.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or of an unknown kind.
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
        f"{path} is not a weight file: its name ends in none of {', '.join((*SAFETENSORS, *PICKLES))}",
        hint="Give a Meta-style DiT checkpoint (.pt), a .safetensors file or a diffusers folder.",
    )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file. Raises CheckpointError when it cannot be read."""
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file: {error}",
            hint="It was cut short or damaged, or is another kind of file; download or copy it again.",
        ) from error


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Load ``tensors`` into ``module`` as float32: either all of them, or none when names or shapes do not match.

    Raises:
        CheckpointError: some are missing, unexpected or misshapen; the message lists all three kinds.
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
            hint="Give the checkpoint of exactly this backbone, or let its sizes be read from the file alone.",
        )
    # Copies, because tensors may be views of a mapped file: overwriting that file would change the module.
    own = {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in tensors.items()}
    module.load_state_dict(own, strict=True, assign=True)


def digest_tensors(tensors: Mapping[str, Tensor], *, without: Iterable[str] = ()) -> str:
    """SHA-256 over names, shapes, types and values, sorted by name: equal weights have it in any kind of file.

    Tensors whose name is in ``without`` are left out.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors.keys() - set(without)):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_diffusers(folder: Path) -> Weights:
    path, config, file, scheduler, pipeline = open_diffusers(folder)
    tensors = read_safetensors(file)[0] if file.suffix in SAFETENSORS else _unwrap(_read_pickle(file), file)
    return Weights(tensors, {}, config, path, scheduler=scheduler, pipeline=pipeline)


class _StandIn(dict[Any, Any]):
    """Stands in for a config object in a pickle: it keeps the object's state and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _stand_in_for(name: str) -> Any:
    # torch's reader fills plain dicts only; each name gets its own class, because a pickle may compare classes
    return (lambda *factory: {}) if name == "collections.defaultdict" else type("StandIn", (_StandIn,), {})


def _read_pickle(path: Path) -> Any:
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty", hint="Download or copy it again.")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # damage, or torch's older format, whose names cannot be listed: the reader below finds out
        names = sorted(_HARMLESS_NAMES)
    harmful = [name for name in names if name not in _HARMLESS_NAMES and not name.startswith(_HARMLESS_MODULES)]
    if harmful:
        raise _would_run_code(path, harmful)
    stand_ins: list[Any] = [(_stand_in_for(name), name) for name in names]
    try:
        with torch.serialization.safe_globals(stand_ins):
            # Memory-mapped, so that the optimizer's state in a training checkpoint is never read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # damage raises RuntimeError, EOFError, UnpicklingError, KeyError, ...
        raise _unreadable(path, error) from error


def _would_run_code(path: Path, names: Iterable[str]) -> CheckpointError:
    return CheckpointError(
        f"{path} would run code when it is loaded ({', '.join(sorted(names))}); refused",
        hint="If you trust its source, save its weights alone: torch.save(module.state_dict(), ...) or safetensors.",
    )


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, pickle.UnpicklingError):  # torch's text advises users to load the file by executing it
        if name := re.search(r"GLOBAL ([\w.]+)", str(error)):
            return _would_run_code(path, [name[1]])
        reason = "it is not a pickle of plain tensors"
    else:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"{path} cannot be read as a torch checkpoint: {reason}",
        hint="It was cut short or damaged, or is another kind of file, such as an HTML page or a git-lfs pointer.",
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
            hint="Expected tensors by name, at the top level or under 'ema' or 'model'.",
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
    if not tensors.keys() >= set(PATCH_NAMES):  # one tensor of a patch alone is unexpected like any other tensor
        return Weights(tensors, metadata, None, path)
    patch = {name: tensors.pop(name) for name in (*PATCH_NAMES, NOISE_NAME) if name in tensors}
    return Weights(tensors, metadata, None, path, patch)


def _first(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown}, … and {len(names) - limit} more" if len(names) > limit else shown
