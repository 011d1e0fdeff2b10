"""Tuned weights: some of a backbone's own weights, and scales on its layers, learnt in place of those it has.

BitFit (Ben Zaken et al. 2022) learns every bias. DiffFit (Xie et al. 2023) learns every bias and the norms, the table
of the classes, and a scale gamma (C,), at first 1, on the C outputs of the last layer of every attention and MLP.

The backbone's own tensors are not written to: learnt ones stand in their places, and can leave them again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..backbones import Backbone
from ..config import BackboneRecord, TunedMethod
from ..errors import ConfigError

_GAMMA = ".gamma"  # behind the name of a layer: the name of its scale
_NORMS = (nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Tuned:
    """What is learnt in place of a backbone's own weights."""

    method: TunedMethod
    parameters: dict[str, nn.Parameter]  # by their names in the backbone, scales as LAYER.gamma
    backbone: BackboneRecord | None  # None for a backbone made in code
    own: dict[str, nn.Parameter]  # the backbone's, by the same names, without scales
    _handles: list[RemovableHandle] = field(default_factory=list)

    def remove(self, backbone: Backbone) -> None:
        """Give ``backbone`` its own weights back."""
        for handle in self._handles:
            handle.remove()
        _exchange(backbone, {id(self.parameters[name]): own for name, own in self.own.items()})

    def bare(self, backbone: Backbone) -> Backbone:
        """Another module of ``backbone`` with its own weights alone. What is not learnt the two have in common."""
        twin = share_weights(backbone)
        for module in twin.modules():
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(hook, _ScaleOutput):
                    del module._forward_hooks[key]
        _exchange(twin, {id(self.parameters[name]): own for name, own in self.own.items()})
        return twin


class _ScaleOutput:
    """Forward hook on a layer: multiplies its output (..., C) by gamma (C,)."""

    def __init__(self, gamma: nn.Parameter) -> None:
        self.gamma = gamma

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.gamma.device != output.device:  # the backbone was moved
            self.gamma.data = self.gamma.data.to(output.device)
        return (output * self.gamma).to(output.dtype)


def create_tuned(backbone: Backbone, method: TunedMethod) -> Tuned:
    """Let ``backbone`` learn what ``method`` says, from the values it has, and nothing else.

    It changes no output bit before it is trained.

    Raises:
        ConfigError: the backbone has nothing of that kind.
    """
    own = own_weights(backbone, method)
    if not own:
        raise ConfigError(f"--method {method}: this backbone has no biases", hint="Use --method lora or dmp.")
    values = {name: parameter.detach() for name, parameter in own.items()}
    layers = dict(backbone.core.named_modules())
    for name in scaled_layers(backbone, method):
        values[name + _GAMMA] = torch.ones_like(layers[name].weight[:, 0])
    tuned = install(backbone, method, values)
    for parameter in tuned.parameters.values():
        parameter.requires_grad_(True)
    return tuned


def install(backbone: Backbone, method: TunedMethod, values: Mapping[str, Tensor]) -> Tuned:
    """Put ``values``, which have the names and shapes of :func:`tuned_shapes`, into ``backbone``; freeze everything."""
    own = own_weights(backbone, method)
    # Copies, because tensors may be views of a mapped file: overwriting that file would change the module.
    like: dict[str, Any] = {"device": backbone.device, "dtype": next(backbone.parameters()).dtype, "copy": True}
    parameters = {
        name: nn.Parameter(values[name].to(**like), requires_grad=False) for name in tuned_shapes(backbone, method)
    }
    backbone.requires_grad_(False)
    backbone.eval()
    _exchange(backbone, {id(parameter): parameters[name] for name, parameter in own.items()})
    layers = dict(backbone.core.named_modules())
    handles = [
        layers[name].register_forward_hook(_ScaleOutput(parameters[name + _GAMMA]))
        for name in scaled_layers(backbone, method)
    ]
    return Tuned(method, parameters, backbone.record, own, handles)


def tuned_shapes(backbone: Backbone, method: TunedMethod) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that ``method`` learns of ``backbone``."""
    shapes = {name: tuple(parameter.shape) for name, parameter in own_weights(backbone, method).items()}
    layers = dict(backbone.core.named_modules())
    return shapes | {name + _GAMMA: tuple(layers[name].weight.shape[:1]) for name in scaled_layers(backbone, method)}


def own_weights(backbone: Backbone, method: TunedMethod) -> dict[str, nn.Parameter]:
    """The backbone's own weights in whose place ``method`` learns others, in their order."""
    norms = {
        f"{path}.{name}"
        for path, module in backbone.core.named_modules()
        if isinstance(module, _NORMS) or type(module).__name__ == "RMSNorm"
        for name, _ in module.named_parameters(recurse=False)
    }
    more = {*norms, backbone.class_table} if method == "difffit" else set()
    return {
        name: parameter
        for name, parameter in backbone.core.named_parameters()
        if name.rpartition(".")[2] == "bias" or name in more
    }


def scaled_layers(backbone: Backbone, method: TunedMethod) -> list[str]:
    """Names of the layers whose outputs ``method`` scales, in the order of the blocks."""
    if method != "difffit":
        return []
    paths = {id(module): path for path, module in backbone.core.named_modules()}
    ends = tuple(f".{name}" for name in backbone.scaled_layers)
    return [
        f"{paths[id(block.module)]}.{name}"
        for block in backbone.list_blocks()
        for name, layer in block.module.named_modules()
        if isinstance(layer, nn.Linear) and f".{name}".endswith(ends)
    ]


def share_weights(backbone: Backbone) -> Backbone:
    """Another module of ``backbone`` that has the same tensors and the same table of captions, not copies of them.

    Raises:
        CheckpointError: it reads text, and the place of the text encoder is not known.
    """
    captions = backbone.captions if backbone.takes_text else None  # both are to read the same indices
    shared = [*backbone.parameters(), *backbone.buffers(), captions]
    return copy.deepcopy(backbone, {id(one): one for one in shared})


def _exchange(backbone: Backbone, others: Mapping[int, nn.Parameter]) -> None:
    """Put other parameters in the places of those with these ids, wherever they stand."""
    for module in backbone.core.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in others:
                module._parameters[name] = others[id(parameter)]
