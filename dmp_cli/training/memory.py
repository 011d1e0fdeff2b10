"""How a backbone is kept in memory during training.

Its frozen weights can be kept in half precision or in fewer bits, its blocks can be recomputed in the backward pass,
and its weights can be spread over the processes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..backbones import Backbone
from ..config import TrainConfig
from ..runtime import HALF, World, fast_matmul, spread_weights
from .methods import Trainee
from .quantized import quantized

# Autocast computes these layers in half precision, so keeping their weights in it gives exactly the same numbers.
_HALF_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


@contextlib.contextmanager
def arranged(trainee: Trainee, config: TrainConfig, world: World, device: torch.device) -> Iterator[None]:
    """Context in which ``trainee`` is kept in memory as ``config`` says; afterwards it is as it was before.

    ``config.shard_backbone`` is the exception: weights that were spread over the processes stay spread.
    """
    backbone = trainee.backbone
    with contextlib.ExitStack() as undo:
        undo.enter_context(fast_matmul(device))
        if config.quantize is not None:
            if backbone.device != device:
                undo.callback(trainee.move, backbone.device)
            undo.enter_context(quantized(backbone, config.quantize, device=device, without=trainee.exact_layers))
            if backbone.device != device:
                trainee.move(device)
        if config.half_frozen and config.dtype != "fp32":
            undo.enter_context(half_weights(backbone, HALF[config.dtype], without=trainee.exact_layers))
        if backbone.channels_last and device.type == "cuda":
            undo.enter_context(channels_last(backbone))
        if config.gradient_checkpointing:
            undo.enter_context(recomputed(backbone))
        if config.shard_backbone:
            spread_weights([block.module for block in backbone.list_blocks()], world, device)
            trainee.move(device)
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


@contextlib.contextmanager
def recomputed(backbone: Backbone) -> Iterator[None]:
    """Context in which the backward pass computes each block again, instead of keeping its activations.

    It saves memory and costs time (Chen et al. 2016). It uses the non-reentrant variant of torch.utils.checkpoint,
    because the input of a frozen first block needs no gradient. Hooks run outside of it, so a mixture is added once.
    """
    blocks = [block.module for block in backbone.list_blocks()]
    try:
        for block in blocks:
            # preserve_rng_state=False: no block draws random numbers
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


@contextlib.contextmanager
def channels_last(backbone: Backbone) -> Iterator[None]:
    """Context in which the convolutions keep their weights, and so their feature maps, in the channels-last format.

    GPUs compute convolutions fastest in this memory format.
    """
    backbone.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        backbone.to(memory_format=torch.contiguous_format)
