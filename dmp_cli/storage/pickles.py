"""Reading torch's pickles without running what is in them.

They go through torch's ``weights_only`` reader, which puts inert stand-ins in the place of the harmless config objects
that training scripts save beside the weights (argparse, OmegaConf).
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError

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


class _StandIn(dict[Any, Any]):
    """Stands in for a config object in a pickle: it keeps the object's state and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _stand_in_for(name: str) -> Any:
    # torch's reader fills plain dicts only; each name gets its own class, because a pickle may compare classes
    return (lambda *factory: {}) if name == "collections.defaultdict" else type("StandIn", (_StandIn,), {})


def read_pickle(path: Path) -> Any:
    """The content of a torch checkpoint. Raises CheckpointError if it is damaged or would run code."""
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
        with torch.serialization.safe_globals(stand_ins), open(path, "rb") as file:
            # Memory-mapped, so that the optimizer's state in a training checkpoint is never read. Newer versions of
            # torch go by the name of a file, so one with the other name is given open.
            mapped = zipfile.is_zipfile(path) and path.suffix.lower() != ".safetensors"
            return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
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


def as_plain(value: Any) -> Any:
    """What a stand-in keeps of its object, as dicts, lists and plain values: a Namespace, or a config of OmegaConf."""
    if isinstance(value, _StandIn):
        state = getattr(value, "state", dict(value))
        if isinstance(state, dict):
            inner = next((state[key] for key in ("_content", "_val") if key in state), state)
            return as_plain(inner)
        return None
    if isinstance(value, dict):
        return {str(key): as_plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(inner) for inner in value]
    return value
