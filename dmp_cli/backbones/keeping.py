"""How the frozen weights of a backbone are kept while it is used: in half precision, in fewer bits, in main memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import Dtype, Quantize
from ..runtime import HALF
from .base import Backbone
from .offloaded import check_offload, offloaded
from .quantized import check_quantize, quantized

# Autocast computes these layers in half precision, so keeping their weights in it gives exactly the same numbers.
_HALF_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


class Keeping(NamedTuple):
    """What becomes of the frozen weights of the blocks."""

    half: Dtype = "fp32"  # the type that they are kept in; fp32: their own
    quantize: Quantize | None = None
    offload_blocks: bool = False

    @property
    def packs(self) -> bool:
        """Whether the backbone is to be read into main memory, and brought to the device from there."""
        return self.quantize is not None or self.offload_blocks

    def check(self, device: torch.device) -> None:
        """Raise ConfigError where ``device`` cannot keep them so, before weights are read."""
        if self.quantize is not None:
            check_quantize(self.quantize, device)
        if self.offload_blocks:
            check_offload(device)


@contextlib.contextmanager
def kept(
    backbone: Backbone,
    how: Keeping,
    *,
    device: torch.device,
    move: Callable[[torch.device], None],
    without: Collection[nn.Module] = (),
) -> Iterator[None]:
    """Context in which the frozen weights are kept as ``how`` says, for a computation on ``device``.

    ``move`` moves all that is not kept in some other way. Layers in ``without`` keep their precision. Afterwards the
    weights are as they were, and where they were.
    """
    with contextlib.ExitStack() as undo:
        is_elsewhere = backbone.device != device
        if how.packs and is_elsewhere:
            undo.callback(move, backbone.device)
        if how.quantize is not None:
            few = quantized(backbone, how.quantize, device=device, without=without, aside=how.offload_blocks)
            undo.enter_context(few)
        if how.quantize is not None and is_elsewhere and not how.offload_blocks:
            move(device)
        if how.half != "fp32":
            undo.enter_context(half_weights(backbone, HALF[how.half], without=without))
        if how.offload_blocks:
            undo.enter_context(offloaded(backbone, device=device, without=without))
            if is_elsewhere:
                move(device)
        yield


@contextlib.contextmanager
def half_weights(backbone: Backbone, dtype: torch.dtype, *, without: Collection[nn.Module] = ()) -> Iterator[None]:
    """Context that keeps the frozen weights of the blocks' matrix products in ``dtype``, the originals in main memory.

    Under autocast this changes no number, because autocast rounds the same weights to ``dtype`` in every forward.
    Modules outside the blocks keep their dtype: some of them compute in float32 even under autocast, such as those that
    embed a timestep. So do the layers in ``without``.
    """
    kept = {id(module) for module in without}
    frozen = [
        parameter
        for block in backbone.list_blocks()
        for module in block.module.modules()
        if isinstance(module, _HALF_LAYERS) and id(module) not in kept
        for parameter in module.parameters(recurse=False)
        if not parameter.requires_grad and parameter.dtype == torch.float32
    ]
    originals: list[tuple[nn.Parameter, Tensor, torch.device]] = []
    try:
        for parameter in frozen:
            originals.append((parameter, parameter.data.to("cpu"), parameter.device))
            parameter.data = parameter.data.to(dtype)
        yield
    finally:
        for parameter, original, device in originals:
            parameter.data = original.to(device)
