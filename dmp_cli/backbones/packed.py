"""Frozen layers whose weights are made anew where they are used: kept in few bits, in main memory, or both.

Autograd keeps none of these weights. They are made once more in the backward pass.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.grad import conv2d_input

from .base import Backbone

_SCALES = "weight_scales"
Layer = nn.Linear | nn.Conv2d


class Packed(NamedTuple):
    """A weight as it is kept."""

    codes: Tensor
    scales: Tensor | None  # on the device that computes
    unpack: Callable[[Tensor, torch.dtype], Tensor]  # of codes on that device: the weight in this type


class _Product(torch.autograd.Function):
    """x W^T + b with a frozen W that is unpacked in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, unpacked: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.unpacked = unpacked
        return linear(x, unpacked(x), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad @ ctx.unpacked(grad), None, None


class _Convolution(torch.autograd.Function):
    """A convolution of x with a frozen kernel that is unpacked in both directions."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, unpacked: Callable[[Tensor], Tensor], layer: nn.Conv2d
    ) -> Tensor:
        ctx.unpacked, ctx.layer, ctx.shape = unpacked, layer, x.shape
        return layer._conv_forward(x, unpacked(x), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        layer, kernel = ctx.layer, ctx.unpacked(grad)
        found = conv2d_input(ctx.shape, kernel, grad, layer.stride, layer.padding, layer.dilation, layer.groups)
        return found, None, None, None


def packable(backbone: Backbone, kinds: tuple[type, ...], *, without: Collection[nn.Module] = ()) -> list[Any]:
    """The blocks' frozen layers of these ``kinds``, without those that the gate reads and those in ``without``."""
    left_out = {id(module) for source in backbone.gate_sources.values() for module in source.modules()}
    left_out |= {id(module) for module in without}
    found = {
        id(module): module
        for block in backbone.list_blocks()
        for module in block.module.modules()
        if type(module) in kinds and id(module) not in left_out
    }
    return [layer for layer in found.values() if not any(p.requires_grad for p in layer.parameters())]


@contextlib.contextmanager
def packed(
    backbone: Backbone,
    layers: Iterable[Layer],
    pack: Callable[[Tensor], Packed],
    *,
    device: torch.device,
    aside: bool = False,
) -> Iterator[None]:
    """Context in which the weights of ``layers`` are as ``pack`` makes them, one layer at a time.

    ``device`` is the one that computes. With ``aside`` codes stay in main memory, and are moved to it where they are
    used. The originals stay in main memory, and are the layers' weights again afterwards. The record of the backbone
    goes on to describe them.
    """
    originals: list[tuple[Layer, nn.Parameter]] = []
    is_recorded, stamp = backbone.stamp() == backbone.recorded_stamp, backbone.recorded_stamp
    try:
        for layer in layers:
            weight: Any = layer.weight
            made = pack(weight.detach())
            weight.data = weight.data.to("cpu")
            originals.append((layer, weight))
            codes = made.codes.to("cpu") if aside else made.codes
            layer.weight = _placeholder(codes, weight.shape, device) if aside else nn.Parameter(codes, False)
            if made.scales is not None:  # part of what is kept, not of state_dict
                layer.register_buffer(_SCALES, made.scales, persistent=False)
            unpacked = functools.partial(_unpacked, codes, made.unpack, aside)
            layer.forward = functools.partial(_forward, layer, unpacked)  # type: ignore[method-assign]
        if is_recorded:
            backbone.recorded_stamp = backbone.stamp()
        yield
    finally:
        for layer, weight in originals:
            layer.weight = weight
            layer._buffers.pop(_SCALES, None)
            layer._non_persistent_buffers_set.discard(_SCALES)
            vars(layer).pop("forward", None)
        backbone.recorded_stamp = stamp


def _placeholder(codes: Tensor, shape: torch.Size, device: torch.device) -> nn.Parameter:
    """A weight of this shape on ``device`` that takes the memory of one number: others ask it for type and device."""
    return nn.Parameter(torch.zeros(1, dtype=codes.dtype, device=device).expand(shape), requires_grad=False)


def _unpacked(codes: Tensor, unpack: Callable[[Tensor, torch.dtype], Tensor], aside: bool, like: Tensor) -> Tensor:
    """The weight with the type of ``like``, on its device."""
    return unpack(codes.to(like.device, copy=True) if aside else codes, like.dtype)


def _forward(layer: Layer, unpacked: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What the layer computes, in the type that autocast wants or that ``x`` has."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    bias = None if layer.bias is None else layer.bias.to(dtype)
    further = (layer,) if isinstance(layer, nn.Conv2d) else ()
    result: Tensor = (_Convolution if further else _Product).apply(x.to(dtype), bias, unpacked, *further)
    return result
