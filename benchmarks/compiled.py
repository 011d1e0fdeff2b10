"""What ``--compile`` costs and brings: ``python -m benchmarks compiled``. Patched networks, one thread, float32.

Blocks that are alike are compiled once, by region; the whole network as one graph stands beside it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from dmp_cli.backbones import Backbone, as_backbone, compiled_around, compiled_blocks
from dmp_cli.backbones.compiling import has_regions
from dmp_cli.config import CodecRecord, PatchConfig
from dmp_cli.patching.attachment import attach, create_patch

from .paired import Pair, ratios, summary
from .peers import build_unet
from .setting import build_nonzero

BATCH = 4
Work = Callable[[], Any]


def networks(*, quick: bool) -> Iterator[tuple[str, Backbone, tuple[Any, ...]]]:
    """Name, backbone and the arguments of a call of it."""
    timesteps = torch.randint(0, 1000, (BATCH,))
    for name in ("dit-s2",) if quick else ("dit-s2", "dit-b2"):
        yield name, build_nonzero(name), (torch.randn(BATCH, 4, 32, 32), timesteps, timesteps)
    yield "U-Net of 32x32 pixels", as_backbone(build_unet(quick=quick)), (torch.randn(BATCH, 3, 32, 32), timesteps)


def works_of(backbone: Backbone, call: tuple[Any, ...], how: str | None, undo: ExitStack) -> tuple[Work, Work]:
    """A training step's passes and a forward of one denoising step, ``how``: by region, whole, or eager."""
    backbone = copy.deepcopy(backbone).requires_grad_(False)
    patched = attach(backbone, create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=256), force=True)
    weights = list(patched.patch.parameters())
    if how == "region":
        undo.enter_context(compiled_blocks(backbone))
    network: Callable[..., Tensor] = patched if how is None else compiled_around(patched, backbone)

    def step() -> None:
        torch.autograd.grad(network(*call).square().mean(), weights, allow_unused=True)

    def forward() -> None:
        with torch.no_grad():
            network(*call)

    return step, forward


def rows_of(name: str, backbone: Backbone, call: tuple[Any, ...], *, rounds: int) -> Iterator[Pair]:
    """Times over eager ones, and the seconds until the first results are there."""
    kinds = ["region", "whole"] if has_regions(backbone) else ["whole"]
    with ExitStack() as undo:
        eager, found = works_of(backbone, call, None, undo), {}
        for kind in kinds:
            torch._dynamo.reset()
            begin = time.perf_counter()
            found[kind] = works_of(backbone, call, kind, undo)
            for work in found[kind]:
                work()
            yield f"{name}, {kind}: seconds until both are compiled", f"{time.perf_counter() - begin:.1f}"
            for place, what in enumerate(("forward and backward of a training step", "forward without gradients")):
                works = {"eager": eager[place], "compiled": found[kind][place]}
                yield (
                    f"{name}, {kind}: {what}, compiled / eager",
                    summary(ratios(works, base="eager", rounds=rounds)["compiled"]),
                )


def table(*, quick: bool) -> Iterator[Pair]:
    """Yield the rows of the table, each as soon as it is measured."""
    torch._dynamo.config.recompile_limit = 32
    for name, backbone, call in networks(quick=quick):
        yield from rows_of(name, backbone, call, rounds=3 if quick else 9)
