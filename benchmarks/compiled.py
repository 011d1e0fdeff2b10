"""What ``--compile`` costs and brings: ``python -m benchmarks compiled [--only TEXT]``, for rows of one network.

Patched networks, one thread, float32. Blocks that are alike are compiled once, by region; the whole network as one
graph stands beside it. Graphs and recompiles are counted by ``torch._dynamo``, over several timesteps and captions.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from dmp_cli.backbones import Backbone, as_backbone, compiled_around, compiled_blocks
from dmp_cli.backbones.compiling import has_regions
from dmp_cli.config import CodecRecord, PatchConfig
from dmp_cli.patching.attachment import attach, create_patch

from .paired import Pair, ratios, summary
from .peers import build_unet
from .setting import build_nonzero
from .shaped import call_of, narrow_unet, tiny_sd3

BATCH = 4
Work = Callable[[tuple[Tensor, ...]], Any]


def networks(*, quick: bool) -> dict[str, Callable[[], tuple[Backbone, tuple[Tensor, ...]]]]:
    """By name, what builds a backbone and the arguments of a call of it."""

    def dit(name: str) -> tuple[Backbone, tuple[Tensor, ...]]:
        timesteps = torch.randint(0, 1000, (BATCH,))
        labels = timesteps.clone()  # one tensor for both would be a graph of its own
        return build_nonzero(name), (torch.randn(BATCH, 4, 32, 32), timesteps, labels)

    def pixels() -> tuple[Backbone, tuple[Tensor, ...]]:
        unet = as_backbone(build_unet(quick=quick))
        return unet, (torch.randn(BATCH, 3, 32, 32), torch.randint(0, 1000, (BATCH,)))

    def reading(build: Callable[..., Backbone]) -> tuple[Backbone, tuple[Tensor, ...]]:
        backbone = build(quick=quick)
        return backbone, call_of(backbone, BATCH)

    return {
        **{name: partial(dit, name) for name in (("dit-s2",) if quick else ("dit-s2", "dit-b2"))},
        "U-Net of 32x32 pixels": pixels,
        "U-Net of SD 1.5's shape": partial(reading, narrow_unet),
        "SD3 of 8 blocks": partial(reading, tiny_sd3),
    }


def works_of(backbone: Backbone, how: str | None, undo: ExitStack) -> tuple[Work, Work]:
    """A training step's passes and a forward of one denoising step, ``how``: by region, whole, or eager."""
    backbone = copy.deepcopy(backbone).requires_grad_(False)
    patched = attach(backbone, create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=256), force=True)
    weights = list(patched.patch.parameters())
    if how == "region":
        undo.enter_context(compiled_blocks(backbone))
    network: Callable[..., Tensor] = patched if how is None else compiled_around(patched, backbone)

    def step(call: tuple[Tensor, ...]) -> None:
        torch.autograd.grad(network(*call).square().mean(), weights, allow_unused=True)

    def forward(call: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            network(*call)

    return step, forward


def graphs() -> int:
    """How many have been compiled."""
    return int(counters["stats"]["unique_graphs"])


def rows_of(name: str, backbone: Backbone, call: tuple[Tensor, ...], *, rounds: int) -> Iterator[Pair]:
    """Times over eager ones, the seconds until the first results are there, and the graphs."""
    kinds = ["region", "whole"] if has_regions(backbone) else ["whole"]
    with ExitStack() as undo:
        eager, found = works_of(backbone, None, undo), {}
        for kind in kinds:
            torch._dynamo.reset()
            counters.clear()
            begin = time.perf_counter()
            found[kind] = works_of(backbone, kind, undo)
            for work in found[kind]:
                work(call)
            yield f"{name}, {kind}: seconds until both are compiled", f"{time.perf_counter() - begin:.1f}"
            made, breaks = graphs(), len(counters["graph_break"])  # a place counts once, whoever calls it
            for work, turn in product(found[kind], range(1, BATCH)):
                work(tuple(part.roll(turn, 0) for part in call))
            told = f"{made}, {graphs() - made} more for other timesteps and captions; broken in {breaks} places"
            yield f"{name}, {kind}: graphs of both", told
            for place, what in enumerate(("forward and backward of a training step", "forward without gradients")):
                works: dict[str, Callable[[], object]] = {
                    "eager": partial(eager[place], call),
                    "compiled": partial(found[kind][place], call),
                }
                told = summary(ratios(works, base="eager", rounds=rounds)["compiled"])
                yield f"{name}, {kind}: {what}, compiled / eager", told


def table(*, quick: bool, only: str = "") -> Iterator[Pair]:
    """Yield the rows of the networks whose name has ``only`` in it, each as soon as it is measured."""
    torch._dynamo.config.recompile_limit = 32
    for name, build in networks(quick=quick).items():
        if only in name:
            yield from rows_of(name, *build(), rounds=3 if quick else 9)
