"""The config.json of a model's folder against the fields of its class, and the older names of its tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

# What diffusers' EMAModel adds to the config of the model that it averages.
_OF_AVERAGES = {
    *("decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"),
    "use_warmup",
}
# Parts of the names of attention layers before diffusers 0.13, and what they are called since.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def known_fields(config: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields of ``config`` that are in ``known``."""
    return {key: value for key, value in config.items() if key in known}


def passed_over(config: Mapping[str, Any], known: Collection[str], *, source: object) -> tuple[str, ...]:
    """A remark that names the fields of ``config`` that its class does not know, as diffusers passes over them too."""
    unknown = [
        f"{key} {value}"
        for key, value in config.items()
        if key not in known and key not in _OF_AVERAGES and not key.startswith("_") and value is not None
    ]
    name = config.get("_class_name")
    return (f"{source}: fields that a {name} does not know are passed over: {', '.join(unknown)}",) if unknown else ()


def with_present_names(tensors: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """``tensors`` with the older names of attention layers replaced, where the model expects the present ones."""
    renamed = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        present = ".".join([*parts[:-2], _OLD_ATTENTION.get(parts[-2], parts[-2]), parts[-1]]) if parts[1:] else name
        renamed[present if name not in expected and present in expected else name] = tensor
    return renamed
