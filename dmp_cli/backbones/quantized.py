"""Frozen weights in 8 or 4 bits.

The linear layers of the blocks keep their weights as whole numbers with scales. What the gate reads, norms, embedders
and convolutions stay as they are.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Quantize
from ..errors import ConfigError
from .base import Backbone
from .packed import Packed, packable, packed

_NF4_BLOCK = 64  # weights that share a scale


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
    return packable(backbone, (nn.Linear,), without=without)


@contextlib.contextmanager
def quantized(
    backbone: Backbone,
    kind: Quantize,
    *,
    device: torch.device,
    without: Collection[nn.Module] = (),
    aside: bool = False,
) -> Iterator[None]:
    """Context that keeps the weights of :func:`quantizable` layers in few bits on ``device``, or ``aside``: see packed.

    The originals stay in main memory, and are the layers' weights again afterwards.
    """

    def pack(weight: Tensor) -> Packed:
        if type(weight).__name__ == "FakeTensor":  # only counted
            return _blank(weight, kind)
        return _PACK[kind](weight.to(device))

    with packed(backbone, quantizable(backbone, without=without), pack, device=device, aside=aside):
        yield


def _int8(weight: Tensor) -> Packed:
    """Eight bits and a scale for each row, by torchao."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    quantize_(layer, Int8WeightOnlyConfig(version=2))
    made: Any = layer.weight
    return _of_rows(made.qdata, made.scale)


def _of_rows(codes: Tensor, scales: Tensor) -> Packed:
    return Packed(codes, scales, lambda codes, dtype: codes.to(dtype).mul_(scales.to(dtype)))  # (out, in) * (out, 1)


def _nf4(weight: Tensor) -> Packed:
    """Four bits (NF4, Dettmers et al. 2023) and a scale for each 64 weights, by bitsandbytes."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    codes, state = quantize_4bit(weight, blocksize=_NF4_BLOCK, quant_type="nf4")
    return Packed(codes, state.absmax, lambda codes, dtype: dequantize_4bit(codes, state).to(dtype))


def _blank(weight: Tensor, kind: Quantize) -> Packed:
    """The same sizes without values."""
    if kind == "int8":
        return _of_rows(torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight), 1))
    codes = torch.empty(weight.numel() // 2, 1, dtype=torch.uint8)
    scales = torch.empty(weight.numel() // _NF4_BLOCK)
    return Packed(codes, scales, lambda codes, dtype: torch.empty(weight.shape, dtype=dtype))


_PACK: dict[Quantize, Callable[[Tensor], Packed]] = {"int8": _int8, "nf4": _nf4}
_LIBRARIES: dict[Quantize, tuple[str, str]] = {
    "int8": ("torchao", "quantize"),
    "nf4": ("bitsandbytes", "quantize-cuda"),
}
