"""How a backbone is kept while it trains: in half precision, its blocks computed twice, spread over processes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..backbones import Backbone
from ..config import TrainConfig
from ..runtime import HALF, World, fast_matmul, spread_weights
from .methods import Trainee

# Layers that autocast computes in half precision, so that weights kept in it give the very same numbers.
_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d)


@contextlib.contextmanager
def arranged(trainee: Trainee, config: TrainConfig, world: World, device: torch.device) -> Iterator[None]:
    """Context in which ``trainee`` is laid out for training as ``config`` says; afterwards it is as it was.

    Except for ``config.shard_backbone``: weights once spread over processes stay so.
    """
    backbone = trainee.backbone
    with contextlib.ExitStack() as undo:
        undo.enter_context(fast_matmul(device))
        if config.half_frozen and config.dtype != "fp32":
            undo.enter_context(half_weights(backbone, HALF[config.dtype]))
        if backbone.channels_last and device.type == "cuda":
            undo.enter_context(channels_last(backbone))
        if config.gradient_checkpointing:
            undo.enter_context(recomputed(backbone))
        if config.shard_backbone:
            spread_weights([block.module for block in backbone.list_blocks()], world, device)
            trainee.move(device)
        yield


@contextlib.contextmanager
def half_weights(backbone: Backbone, dtype: torch.dtype) -> Iterator[None]:
    """Inside, frozen weights of the blocks' matrix products are kept in ``dtype``; the originals wait in main memory.

    Under autocast nothing changes by it: it would round the same weights to ``dtype`` in every forward. Outside the
    blocks some modules compute in float32 whatever autocast says, such as those that embed a timestep.
    """
    frozen = [
        parameter
        for block in backbone.list_blocks()
        for module in block.module.modules()
        if isinstance(module, _PRODUCTS)
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
    """Inside, the backward computes each block again instead of keeping what it made: less memory, more time.

    Non-reentrant (Chen et al. 2016, as in torch.utils.checkpoint): the input of a frozen first block needs no gradient.
    Hooks run outside of it, so a mixture is added once.
    """
    blocks = [block.module for block in backbone.list_blocks()]
    try:
        for block in blocks:
            # no block draws random numbers: there is no state to bring back
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


@contextlib.contextmanager
def channels_last(backbone: Backbone) -> Iterator[None]:
    """Inside, convolutions keep their weights, and so their maps, in the memory format that GPUs are fastest with."""
    backbone.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        backbone.to(memory_format=torch.contiguous_format)
