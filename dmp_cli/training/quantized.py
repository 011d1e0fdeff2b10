"""Frozen weights in 8 or 4 bits while a patch trains.

The linear layers of the blocks keep their weights as whole numbers with scales. What the gate reads, norms, embedders
and convolutions stay as they are. The float weights are made anew where they are used, in the backward pass too, so
that autograd keeps none of them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..backbones import Backbone
from ..config import Quantize
from ..errors import ConfigError

_NF4_BLOCK = 64  # weights that share a scale
_SCALES = "weight_scales"


class Packed(NamedTuple):
    """A weight (out, in) in few bits."""

    codes: Tensor
    scales: Tensor
    unpack: Callable[[torch.dtype], Tensor]  # the weight in this type


class _Product(torch.autograd.Function):
    """x W^T + b with a frozen W that is unpacked in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, unpack: Callable[[torch.dtype], Tensor]) -> Tensor:
        ctx.unpack = unpack
        return linear(x, unpack(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad @ ctx.unpack(grad.dtype), None, None


def check_quantize(kind: Quantize, device: torch.device) -> None:
    """Raise ConfigError where ``device`` cannot keep weights so, or the library for it is not installed."""
    library, extra = _LIBRARIES[kind]
    if kind == "nf4" and device.type != "cuda":
        raise ConfigError(
            f"--quantize nf4 needs a CUDA device, and this run computes on {device.type}",
            hint="Give --quantize int8, which any device computes.",
        )
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f"--quantize {kind} needs {library}, which is not installed",
            hint=f"Install it: pip install 'dmp-cli[{extra}]'.",
        )


def quantizable(backbone: Backbone, *, without: Collection[nn.Module] = ()) -> list[nn.Linear]:
    """The frozen linear layers of the blocks, without those that the gate reads and those in ``without``."""
    left_out = {id(module) for source in backbone.gate_sources.values() for module in source.modules()}
    left_out |= {id(module) for module in without}
    found = {
        id(module): module
        for block in backbone.list_blocks()
        for module in block.module.modules()
        if type(module) is nn.Linear and id(module) not in left_out
    }
    return [layer for layer in found.values() if not any(p.requires_grad for p in layer.parameters())]


@contextlib.contextmanager
def quantized(
    backbone: Backbone, kind: Quantize, *, device: torch.device, without: Collection[nn.Module] = ()
) -> Iterator[None]:
    """Context that keeps the weights of :func:`quantizable` layers in few bits on ``device``, one layer at a time.

    The originals stay in main memory, and are the layers' weights again afterwards.
    """
    originals: list[tuple[nn.Linear, nn.Parameter]] = []
    try:
        for layer in quantizable(backbone, without=without):
            weight: Any = layer.weight
            packed = _pack(weight.detach(), kind, device)
            weight.data = weight.data.to("cpu")
            originals.append((layer, weight))
            layer.weight = nn.Parameter(packed.codes, requires_grad=False)
            layer.register_buffer(_SCALES, packed.scales, persistent=False)  # part of what is kept, not of state_dict
            layer.forward = functools.partial(_forward, layer, packed.unpack)  # type: ignore[method-assign]
        yield
    finally:
        for layer, weight in originals:
            layer.weight = weight
            delattr(layer, _SCALES)
            vars(layer).pop("forward", None)


def _forward(layer: nn.Linear, unpack: Callable[[torch.dtype], Tensor], x: Tensor) -> Tensor:
    """What the layer computes, in the type that autocast wants or that ``x`` has."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    bias = None if layer.bias is None else layer.bias.to(dtype)
    result: Tensor = _Product.apply(x.to(dtype), bias, unpack)
    return result


def _pack(weight: Tensor, kind: Quantize, device: torch.device) -> Packed:
    if type(weight).__name__ == "FakeTensor":  # only counted
        return _blank(weight, kind)
    return _PACK[kind](weight.to(device))


def _int8(weight: Tensor) -> Packed:
    """Eight bits and a scale for each row, by torchao."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    quantize_(layer, Int8WeightOnlyConfig(version=2))
    made: Any = layer.weight
    return _of_rows(made.qdata, made.scale)


def _of_rows(codes: Tensor, scales: Tensor) -> Packed:
    return Packed(codes, scales, lambda dtype: codes.to(dtype).mul_(scales.to(dtype)))  # (out, in) * (out, 1)


def _nf4(weight: Tensor) -> Packed:
    """Four bits (NF4, Dettmers et al. 2023) and a scale for each 64 weights, by bitsandbytes."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    codes, state = quantize_4bit(weight, blocksize=_NF4_BLOCK, quant_type="nf4")
    return Packed(codes, state.absmax, lambda dtype: dequantize_4bit(codes, state).to(dtype))


def _blank(weight: Tensor, kind: Quantize) -> Packed:
    """The same sizes without values."""
    if kind == "int8":
        return _of_rows(torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight), 1))
    codes = torch.empty(weight.numel() // 2, 1, dtype=torch.uint8)
    scales = torch.empty(weight.numel() // _NF4_BLOCK)
    return Packed(codes, scales, lambda dtype: torch.empty(weight.shape, dtype=dtype))


_PACK: dict[Quantize, Callable[[Tensor], Packed]] = {"int8": _int8, "nf4": _nf4}
_LIBRARIES: dict[Quantize, tuple[str, str]] = {
    "int8": ("torchao", "quantize"),
    "nf4": ("bitsandbytes", "quantize-cuda"),
}
