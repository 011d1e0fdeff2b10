"""How a backbone is kept in memory during training.

Its frozen weights can be kept in half precision, in fewer bits or in main memory, its blocks can be recomputed in the
backward pass, and its weights can be spread over the processes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ..backbones import Backbone, Keeping, compiled_blocks, kept
from ..config import TrainConfig
from ..runtime import World, fast_matmul, spread_weights
from .methods import Trainee


def keeping_of(config: TrainConfig) -> Keeping:
    """How ``config`` keeps the frozen weights."""
    return Keeping(config.dtype if config.half_frozen else "fp32", config.quantize, config.offload_blocks)


@contextlib.contextmanager
def arranged(trainee: Trainee, config: TrainConfig, world: World, device: torch.device) -> Iterator[None]:
    """Context in which ``trainee`` is kept in memory as ``config`` says; afterwards it is as it was before.

    ``config.shard_backbone`` is the exception: weights that were spread over the processes stay spread.
    """
    backbone = trainee.backbone
    with contextlib.ExitStack() as undo:
        undo.enter_context(fast_matmul(device))
        place: dict[str, Any] = {"device": device, "move": trainee.move, "without": trainee.exact_layers}
        if config.offload_blocks:
            trainee.codec.rest()
        undo.enter_context(kept(backbone, keeping_of(config), **place))
        if backbone.channels_last and device.type == "cuda":
            undo.enter_context(channels_last(backbone))
        if config.compile:
            undo.enter_context(compiled_blocks(backbone))
        if config.gradient_checkpointing:
            undo.enter_context(recomputed(backbone))
        if config.shard_backbone:
            spread_weights([block.module for block in backbone.list_blocks()], world, device)
            trainee.move(device)
        yield


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
