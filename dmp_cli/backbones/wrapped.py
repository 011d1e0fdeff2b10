"""Wrap a diffusers model as a backbone. The model keeps its own forward and its own names."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..config import BackboneHints, GateInput
from ..errors import CheckpointError
from ..storage import Weights, load_strictly
from .base import Backbone
from .folder_configs import known_fields, passed_over, with_present_names

_COMPUTED = {torch.float64, torch.float32, torch.bfloat16, torch.float16}  # types that matrix products are taken in


class Wrapped(Backbone):
    """A backbone that wraps an unchanged diffusers model. Its state_dict has the model's own names."""

    classes: ClassVar[tuple[str, ...]]  # names of the diffusers classes that it wraps
    any_size = True

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        channels, side = int(model.config["in_channels"]), side_of(model.config.get("sample_size"))
        self.sample_shape = (channels, side, side)
        self.learns_sigma = model.config["out_channels"] == 2 * channels
        self.gate_width = self.embedder.linear_2.out_features

    @property
    def core(self) -> nn.Module:
        return self.model

    @property
    def embedder(self) -> Any:
        """The module that maps timestep features to the vector (B, D) that the gate reads."""
        raise NotImplementedError

    @property
    def time_features(self) -> nn.Module:
        """The module that maps timesteps (B,) to the features that the embedder takes."""
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, Any]:
        return sizes_of(self.model)

    @property
    def gate_sources(self) -> dict[GateInput, nn.Module]:
        return {"timestep": self.embedder}

    def gate_vector(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        kept = self.embedder.linear_1.weight.dtype
        computed = kept if kept in _COMPUTED else self.model.dtype  # weights in fewer bits are cast where they are used
        return self.embedder(self.time_features(timesteps).to(computed))  # (B, D)

    def null_condition(self, count: int) -> Tensor:
        if not self.takes_text:
            raise ValueError("this backbone has no null condition")
        return torch.zeros(count, dtype=torch.int64, device=self.device)  # caption 0 is the empty caption

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.state_dict(*args, **kwargs)


def sizes_of(model: Any) -> dict[str, Any]:
    """The class of a diffusers model and the config fields that differ from the class's defaults, ready for JSON.

    Without the defaults the sizes are the same in every version of diffusers.
    """
    defaults = inspect.signature(type(model).__init__).parameters
    own = json.loads(json.dumps({key: value for key, value in model.config.items() if key in defaults}))
    plain = {key: json.loads(json.dumps(defaults[key].default)) for key in own}
    changed = {key: value for key, value in own.items() if value != plain[key]}
    return {"class": type(model).__name__, **changed}


def class_of(weights: Weights) -> str | None:
    """The name of the diffusers class in a folder's config.json; None for a single file."""
    return None if weights.config is None else weights.config.get("_class_name")


def read_sizes(weights: Weights, hints: BackboneHints) -> dict[str, Any]:
    """The sizes in a folder's config.json, or those that the header of a single file gave."""
    if weights.config is None:
        assert hints.sizes is not None, "only its own header lets a single file be recognised"
        return hints.sizes
    return {"class": class_of(weights), **known_fields(weights.config, fields_of(class_of(weights)))}


def fields_of(name: str | None) -> Collection[str]:
    """The config fields of a model class of diffusers."""
    import diffusers

    return inspect.signature(getattr(diffusers, str(name)).__init__).parameters.keys() - {"self"}


def build_model(sizes: Mapping[str, Any], known: tuple[str, ...], *, source: object) -> Any:
    """Build a diffusers model with these sizes, without its weights, on the current default device.

    Raises:
        CheckpointError: its class is not among ``known``, or the class refuses the config.
    """
    import diffusers

    given = dict(sizes)
    name = given.pop("class", None)
    if name not in known:
        raise CheckpointError(f"{source}: class {name} is not one of {', '.join(known)}")
    kind = getattr(diffusers, name)
    try:
        unknown = sorted(given.keys() - inspect.signature(kind.__init__).parameters.keys())
        if unknown:
            raise ValueError(f"unknown fields {', '.join(unknown)}")
        return kind(**given)
    except (ValueError, TypeError, KeyError, IndexError, AssertionError, NotImplementedError) as error:
        raise CheckpointError(f"{source} has a config that {name} does not accept: {error}") from error


def fill(backbone: Wrapped, weights: Weights) -> Any:
    """Load ``weights`` into ``backbone`` strictly, in float32, and set eval mode. Raises CheckpointError."""
    tensors = with_present_names(weights.tensors, backbone.core.state_dict().keys())
    load_strictly(backbone.core, tensors, source=weights.path)
    if weights.config is not None:
        known = fields_of(class_of(weights))
        backbone.remarks = passed_over(weights.config, known, source=weights.path)
    empty = [name for name, buffer in backbone.core.named_buffers() if buffer.is_meta]
    assert not empty, f"buffers without values: {empty}"
    return backbone.eval()


def side_of(sample_size: Any) -> int:
    """The side of the square samples. Raises CheckpointError if the config names no side, or another shape."""
    if isinstance(sample_size, (list, tuple)) and len(set(sample_size)) == 1:
        sample_size = sample_size[0]
    if not isinstance(sample_size, int) or sample_size < 1:
        raise CheckpointError(
            f"sample_size {sample_size} in config.json is not supported: samples must be square and of a known side"
        )
    return sample_size
