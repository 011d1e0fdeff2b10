"""Where training checkpoints keep their weights: under wrappers, behind prefixes, and beside an average of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from .pickles import as_plain
from .strict import first_names

# Keys under which training checkpoints keep weights; the first that holds some counts, so that an average comes first.
_WRAPPERS = (
    *("ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict", "params_ema"),
    *("model", "state_dict", "model_state_dict", "module", "net", "network", "denoiser", "params", "weights"),
)
ORIGINAL_UNET = "model.diffusion_model.input_blocks."  # names in an original Stable Diffusion, which holds other parts
_SHADOW = "shadow_params"  # an average of diffusers or accelerate: tensors without names
_ABOUT = ("args", "config", "cfg", "hyper_parameters", "hparams", "opts")  # what a script says of its own training
_COUNTERS = {"step", "steps", "initted", "num_updates", "n_averaged", "decay", "global_step", "epoch", "iteration"}
# The first part of names, where a wrapper of the backbone and other networks share one file.
_PARTS = {"model", "net", "network", "denoiser", "module", "backbone", "online_model", "_orig_mod", "diffusion_model"}


def find_weights_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The weights in the content of a checkpoint: the average if there is one, else the weights as trained.

    Raises:
        CheckpointError: there are none, or the average has no names and the weights beside it do not tell them.
    """
    found = _search(content, path)
    if found is None:
        kind = f"keys {first_names([str(k) for k in content])}" if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} holds no weights: found {kind}",
            hint="Expected tensors by name, at the top level or under 'ema' or 'model'.",
        )
    return found


def said_about(content: Any) -> dict[str, Any]:
    """What a checkpoint says of its own training, as plain dicts; empty if it says nothing."""
    if not isinstance(content, dict):
        return {}
    told = {key: as_plain(content[key]) for key in _ABOUT if key in content}
    return {key: value for key, value in told.items() if isinstance(value, dict) and value}


def without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` without what all their names begin with; of several networks, the averaged one, or the model."""
    while not any(name.startswith(ORIGINAL_UNET) for name in tensors):
        tensors = {name: t for name, t in tensors.items() if not (t.dim() == 0 and name in _COUNTERS)}
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            head, _, rest = name.partition(".")
            parts.setdefault(head if rest else "", {})[rest or name] = tensor
        chosen = _choose(parts)
        if chosen is None:
            return tensors
        tensors = parts[chosen]
    return dict(tensors)


def _choose(parts: Mapping[str, Mapping[str, Tensor]]) -> str | None:
    """The part of the names to go on with; None: all of them."""
    several = [head for head, inner in parts.items() if head and len(inner) > 1]
    averaged = [head for head in several if "ema" in head.split("_")]
    if averaged:
        return averaged[0]
    if len(parts) == 1 and several and not all(name.split(".")[0].isdigit() for name in parts[several[0]]):
        return several[0]
    wrapped = [head for head in several if head in _PARTS]
    return wrapped[0] if len(wrapped) == 1 else None


def _search(content: Any, path: Path) -> dict[str, Tensor] | None:
    """The weights in ``content``, which may be wrapped; None: there are none."""
    if not isinstance(content, dict):
        return None
    averages = [content[key] for key in (*_WRAPPERS, _SHADOW) if _has_shadow(content.get(key))]
    if averages or _has_shadow(content):
        return _name_shadow((averages or [content])[0][_SHADOW], content, path)
    for key in _WRAPPERS:
        if isinstance(content.get(key), dict) and (found := _search(content[key], path)):
            return found
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    beside = [value for name, value in content.items() if name not in tensors and name not in _ABOUT]
    plain = all(value is None or isinstance(value, (bool, int, float, str)) for value in beside)
    return tensors if tensors and plain and all(isinstance(name, str) for name in tensors) else None


def _has_shadow(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get(_SHADOW), (list, tuple)) and len(value[_SHADOW]) > 0


def _name_shadow(shadow: list[Tensor], content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Name the tensors of an average, which are in the order of the weights beside it."""
    beside = {key: value for key, value in content.items() if not _has_shadow(value) and key != _SHADOW}
    named = _search(beside, path) or {}
    if [tuple(tensor.shape) for tensor in named.values()] != [tuple(tensor.shape) for tensor in shadow]:
        raise CheckpointError(
            f"{path}: its average has {len(shadow)} tensors without names, and the weights beside it do not tell them",
            hint="Save the average with its names: copy it into the model and save the model's state_dict().",
        )
    return dict(zip(named, shadow, strict=True))
