"""Compiling by region: blocks that are alike share one graph, and what lies around them stays eager.

A whole network in one graph repeats the block as often as there are blocks, and takes as many times longer to compile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from .base import Backbone, Block

_MOST = 4  # kinds of blocks in one backbone, well below the number of graphs that torch.compile keeps of one function

Call = TypeVar("Call", bound=Callable[..., Tensor])


def has_regions(backbone: Backbone) -> bool:
    """Whether the blocks can share graphs: of at most four kinds, each of several blocks, without hooks inside."""
    blocks = backbone.list_blocks()
    kinds = {_kind_of(block) for block in blocks}
    return len(kinds) <= _MOST and 2 * len(kinds) <= len(blocks) and not any(_has_hooks(block) for block in blocks)


@contextlib.contextmanager
def compiled_blocks(backbone: Backbone) -> Iterator[None]:
    """Context in which the blocks are compiled, if they have regions; afterwards they are as before.

    Their hooks run outside of the graph, so that what a patch adds is in the graph's input.
    """
    blocks = [block.module for block in backbone.list_blocks()] if has_regions(backbone) else []
    try:
        for block in blocks:
            block.forward = torch.compile(block.forward, dynamic=False)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


def compiled_around(call: Call, backbone: Backbone) -> Call:
    """``call``, which runs ``backbone``: as it is within :func:`compiled_blocks`, else compiled whole."""
    if all("forward" in vars(block.module) for block in backbone.list_blocks()):
        return call
    return torch.compile(call, dynamic=False)  # type: ignore[return-value]


def _kind_of(block: Block) -> tuple[object, ...]:
    """What a graph depends on: the class of the block and the shapes of all that is in it."""
    shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in block.module.state_dict().items())
    return type(block.module), block.hidden_shape, shapes


def _has_hooks(block: Block) -> bool:
    """Whether a module inside has hooks, such as those of low-rank experts, or a forward of its own.

    Each such object would be compiled anew.
    """
    inside: list[nn.Module] = [module for module in block.module.modules() if module is not block.module]
    return any(one._forward_hooks or one._forward_pre_hooks or "forward" in vars(one) for one in inside)
