"""A LoRA adapter that acts on some rows of a batch alone. Each thread says for itself which rows these are.

Peft adds B A x to the outputs of a layer for all rows, and passes over them three times. Here the adapted rows are
changed in place, in one pass, and the others cost nothing.

Letters: B batch.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .lora import adapted_layers, switch_off


class _Rows(NamedTuple):
    """The rows of a batch that an adapter acts on."""

    start: int
    stop: int
    factors: Tensor | None  # one for each row from start to stop, 0 where the adapter does not act; None: 1 in all


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

    def __init__(self, here: _Acting) -> None:
        self.here = here

    def __call__(self, layer: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        down, up, scaling = layer.lora_A["default"], layer.lora_B["default"], layer.scaling["default"]
        x, rows = args[0], self.here.rows
        if rows is not None:
            _add_to(output, x, rows, down=down, up=up, scaling=scaling)
            return output
        if self.here.everywhere:  # operation by operation as peft does it, so that no bit differs
            return (output + up(down(x.to(down.weight.dtype))) * scaling).to(output.dtype)
        return None


def _add_to(output: Tensor, x: Tensor, rows: _Rows, *, down: nn.Linear, up: nn.Linear, scaling: float) -> None:
    """Add B A x to ``rows`` of ``output`` (B, ..., out), in place."""
    low = down(x[rows.start : rows.stop].to(down.weight.dtype))  # (B', ..., rank)
    if rows.factors is not None:
        low = low * rows.factors.to(low.dtype).view(-1, *[1] * (low.dim() - 1))
    own = output[rows.start : rows.stop].view(-1, output.shape[-1])
    weight = up.weight.to(own.dtype)
    own.addmm_(low.reshape(-1, low.shape[-1]).to(own.dtype), weight.t(), alpha=scaling)


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
            layer.register_forward_hook(_AddUpdate(self._here))

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
        chosen = adapted.nonzero()[:, 0]
        start, stop = int(chosen[0]), int(chosen[-1]) + 1
        factors = None if stop - start == len(chosen) else adapted[start:stop].to(device, torch.float32)
        self._here.rows = _Rows(start, stop, factors)
        try:
            yield
        finally:
            self._here.rows = None
