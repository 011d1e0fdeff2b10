"""Compiling by region: blocks that are alike share one graph, and what lies around them stays eager.

A whole network in one graph repeats the block as often as there are blocks, and takes as many times longer to compile.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from .base import Backbone, Block

_MOST = 4  # kinds of blocks in one backbone, well below the number of graphs that torch.compile keeps of one function

_compiled: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # blocks whose forward is compiled now

Call = TypeVar("Call", bound=Callable[..., Tensor])


def has_regions(backbone: Backbone) -> bool:
    """Whether the blocks can share graphs: of at most four kinds, each of several blocks, as they were built."""
    blocks = backbone.list_blocks()
    kinds = {_kind_of(block) for block in blocks}
    repeat = len(kinds) <= _MOST and 2 * len(kinds) <= len(blocks)
    return repeat and not any(_is_changed(block.module) for block in blocks)


@contextlib.contextmanager
def compiled_blocks(backbone: Backbone) -> Iterator[None]:
    """Context in which the blocks are compiled, if they have regions; afterwards they are as before.

    Their hooks run outside of the graph, so that what a patch adds is in the graph's input.
    """
    blocks = [block.module for block in backbone.list_blocks()] if has_regions(backbone) else []
    try:
        for block in blocks:
            block.forward = torch.compile(block.forward, dynamic=False)
            _compiled.add(block)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)
            _compiled.discard(block)


def compiled_around(call: Call, backbone: Backbone) -> Call:
    """``call``, which runs ``backbone``: as it is within :func:`compiled_blocks`, else compiled whole."""
    if all(block.module in _compiled for block in backbone.list_blocks()):
        return call
    return torch.compile(call, dynamic=False)  # type: ignore[return-value]


def _kind_of(block: Block) -> tuple[object, ...]:
    """What a graph depends on: the class of the block and the shapes of all that is in it."""
    shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in block.module.state_dict().items())
    return type(block.module), block.hidden_shape, shapes


def _is_changed(block: nn.Module) -> bool:
    """Whether a module inside has hooks, such as those of low-rank experts, or any has a forward of its own.

    Each such object would be compiled anew.
    """
    inside = (one for one in block.modules() if one is not block)
    hooked = any(one._forward_hooks or one._forward_pre_hooks for one in inside)
    return hooked or any("forward" in vars(one) for one in block.modules())
