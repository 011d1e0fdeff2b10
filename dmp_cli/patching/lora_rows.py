"""A LoRA adapter that acts on some rows of a batch alone. Each thread says for itself which rows these are.

Peft adds B A x to the outputs of a layer for all rows, and passes over them three times. Here the adapted rows are
changed in place, in one pass, and the others cost nothing. DoRA takes two passes more.

Letters: B batch.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..backbones import own_rows, running_rows
from .lora import adapted_layers, switch_off


class _Rows(NamedTuple):
    """The rows of a batch that an adapter acts on."""

    start: int
    stop: int
    factors: Tensor | None  # one for each row from start to stop, 0 where the adapter does not act; None: 1 in all
    adapted: Tensor  # (B,), bool and on the CPU: where the adapter acts


def _rows_of(adapted: Tensor, device: torch.device) -> _Rows | None:
    """The rows where ``adapted`` (B,) is set; None: there are none."""
    chosen = adapted.nonzero()[:, 0]
    if not len(chosen):
        return None
    start, stop = int(chosen[0]), int(chosen[-1]) + 1
    factors = None if stop - start == len(chosen) else adapted[start:stop].to(device, torch.float32)
    return _Rows(start, stop, factors, adapted)


class _Acting(threading.local):
    """Where the adapter acts in a thread. Every thread begins with the adapter on."""

    def __init__(self) -> None:
        # Set here and not on the class: torch.compile guards the attributes of the object alone.
        self.everywhere = True
        self.rows: _Rows | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Acting, ()  # what a thread has set can be neither copied nor pickled


class _AddUpdate:
    """Forward hook on an adapted layer, in which peft's own addition is switched off: adds B A x where it acts."""

    def __init__(self, here: _Acting, *, is_dora: bool) -> None:
        self.here, self.is_dora = here, is_dora

    def __call__(self, layer: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        x, rows = args[0], self.here.rows
        if rows is not None and running_rows.value is not None:
            rows = _rows_of(own_rows(rows.adapted), x.device)
            if rows is None:
                return output
        if rows is not None:
            _add_to(output, x, rows, layer, is_dora=self.is_dora)
            return output
        if self.here.everywhere:  # operation by operation as peft does it, so that no bit differs
            down, up, scaling = _parts(layer)
            update = up(down(x.to(down.weight.dtype)))
            if not self.is_dora:
                return (output + update * scaling).to(output.dtype)
            scale, bias = _scale(layer), layer.base_layer.bias
            plain = output if bias is None else output - bias
            return (output + ((scale - 1) * plain + scale * update * scaling)).to(output.dtype)
        return None


def _parts(layer: Any) -> tuple[nn.Linear, nn.Linear, float]:
    """A, B and the factor of an adapted layer."""
    return layer.lora_A["default"], layer.lora_B["default"], layer.scaling["default"]


def _scale(layer: Any) -> Tensor:
    """What DoRA multiplies the outputs of an adapted layer by, m / |W + B A|, (1, out)."""
    down, up, scaling = _parts(layer)
    kind = down.weight.dtype
    unit = torch.eye(down.in_features, device=down.weight.device, dtype=kind)
    update = up(down(unit)).T.to(kind)  # B A as peft computes it, also under autocast
    lengths = torch.linalg.norm(layer.base_layer.weight.to(kind) + scaling * update, dim=1)
    return (layer.lora_magnitude_vector["default"].weight / lengths.to(kind)).view(1, -1)


def _add_to(output: Tensor, x: Tensor, rows: _Rows, layer: Any, *, is_dora: bool) -> None:
    """Let the adapter of ``layer`` act on ``rows`` of ``output`` (B, ..., out), in place."""
    down, up, scaling = _parts(layer)
    low = down(x[rows.start : rows.stop].to(down.weight.dtype))  # (B', ..., rank)
    factors = None if rows.factors is None else rows.factors.to(low.dtype).view(-1, *[1] * (low.dim() - 1))
    if factors is not None:
        low = low * factors
    whole = output[rows.start : rows.stop]
    own, weight = whole.view(-1, output.shape[-1]), up.weight
    if is_dora:
        scale = _scale(layer)
        weight = scale.view(-1, 1) * weight
        if factors is not None:
            scale = 1 + factors * (scale - 1)  # (B', 1, ..., out)
        whole.mul_(scale)
        if layer.base_layer.bias is not None:
            whole.sub_((scale - 1) * layer.base_layer.bias)  # a bias has no length
    own.addmm_(low.reshape(-1, low.shape[-1]).to(own.dtype), weight.to(own.dtype).t(), alpha=scaling)


class AdapterRows:
    """Says on which rows of a batch the adapter inside a backbone acts. Each thread has a say of its own."""

    def __init__(self, backbone: nn.Module) -> None:
        layers = adapted_layers(backbone)
        hooks = [hook for layer in layers for hook in layer._forward_hooks.values() if isinstance(hook, _AddUpdate)]
        self._here = hooks[0].here if hooks else _Acting()
        if hooks:
            return
        switch_off(backbone)
        for layer in layers:
            is_dora = "default" in getattr(layer, "lora_magnitude_vector", {})
            layer.register_forward_hook(_AddUpdate(self._here, is_dora=is_dora))

    @contextlib.contextmanager
    def acting(self, *, everywhere: bool) -> Iterator[None]:
        """Inside this context the adapter acts on all rows, or on none."""
        before, self._here.everywhere = self._here.everywhere, everywhere
        try:
            yield
        finally:
            self._here.everywhere = before

    @contextlib.contextmanager
    def rows(self, adapted: Tensor, *, device: torch.device) -> Iterator[None]:
        """Inside this context the adapter acts on the rows where ``adapted`` (B,), bool and on the CPU, is set.

        At least one row must be.
        """
        self._here.rows = _rows_of(adapted, device)
        try:
            yield
        finally:
            self._here.rows = None
