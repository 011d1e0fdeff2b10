"""Guidance between versions beside classifier-free guidance: time and peak memory of one guided prediction.

Both predict the same doubled batch: ours and the other version under the class, or the class and the null class. Each
row divides by classifier-free guidance of our own network. ``python -m benchmarks guidance``.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from dmp_cli.backbones.base import Backbone
from dmp_cli.config import CodecRecord, PatchConfig, SampleConfig
from dmp_cli.patching import (
    AdapterVersions,
    PatchedBackbone,
    PatchVersions,
    Versions,
    attach,
    create_adapter,
    create_patch,
)
from dmp_cli.sampling.guidance import predict

from .paired import Row, Work, ratios, summary
from .setting import Setting, autocast_of, backbone_of

TIMESTEP, RANK = 500, 4


class OneAfterTheOther(AdapterVersions):
    """A backbone with and without its adapter, which predict one after the other."""

    side_by_side = Versions.side_by_side


def table(setting: Setting) -> Iterator[Row]:
    """Yield the rows of the table, each as soon as it is measured."""
    bare = backbone_of(setting).eval().requires_grad_(False)
    for what, (ours, versions) in pairs(bare).items():
        works = {
            "free": work_of(ours, bare, setting, guidance=2.0, apart=0.0),
            "apart": work_of(versions, bare, setting, guidance=1.0, apart=1.0),
        }
        found = ratios(works, base="free", rounds=setting.rounds, clock=setting.clock)
        yield f"{setting.backbone}: {what}, time", summary(found["apart"]), "1.05"
        free, apart = (peak(work, setting) for work in works.values())
        weights = sum(tensor.nbytes for tensor in bare.parameters())
        whole = f"{(weights + apart) / (weights + free):.3f}"
        alone = f"activations alone {apart / free:.3f}: {apart / 2**20:.1f} of {free / 2**20:.1f} MiB"
        yield f"{setting.backbone}: {what}, peak memory", f"{whole} ({alone})", "1.05"
    yield one_batch(bare, setting)


def one_batch(bare: Backbone, setting: Setting) -> Row:
    """The backbone and its adapter in one batch, over the same one after the other."""
    adapted = with_adapter(bare)
    works = {
        "apart": work_of(OneAfterTheOther(adapted, is_ours=False), bare, setting, guidance=1.0, apart=1.0),
        "batch": work_of(AdapterVersions(adapted, is_ours=False), bare, setting, guidance=1.0, apart=1.0),
    }
    found = ratios(works, base="apart", rounds=setting.rounds, clock=setting.clock)
    return f"{setting.backbone}: base against LoRA, one batch / one after the other, time", summary(found["batch"]), "1"


def pairs(bare: Backbone) -> dict[str, tuple[nn.Module, Versions]]:
    """By what is compared: the network that classifier-free guidance is measured on, and the versions."""
    one, two, adapted = copy.deepcopy(bare), copy.deepcopy(bare), with_adapter(bare)
    patched = attach(one, filled_patch(one, seed=0), name="ours")
    both = attach(two, filled_patch(two, seed=0), name="ours")
    attach(two, filled_patch(two, seed=1), name="theirs")
    return {
        "patch against base": (patched, PatchVersions(patched, theirs=())),
        "base against patch": (bare, PatchVersions(patched, theirs=("ours",))),
        "patch against patch": (patched, PatchVersions(both, theirs=("theirs",))),
        "LoRA against base": (with_adapter(bare), AdapterVersions(adapted, is_ours=True)),
        "base against LoRA": (bare, AdapterVersions(adapted, is_ours=False)),
    }


def with_adapter(bare: Backbone) -> Backbone:
    """A copy of a backbone with an adapter that is not zero."""
    backbone = copy.deepcopy(bare)
    adapter = create_adapter(backbone, rank=RANK, targets=None, seed=0)
    for parameter in adapter.parameters.values():
        parameter.data.normal_(std=0.02)
    return backbone.requires_grad_(False)


def filled_patch(backbone: Backbone, *, seed: int) -> Any:
    """A patch whose prompts are not zero."""
    patch = create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=256, seed=seed)
    for prompts in patch.prompts:
        prompts.data.normal_(std=0.02)
    return patch.to(backbone.device)


def work_of(denoiser: Any, bare: Backbone, setting: Setting, *, guidance: float, apart: float) -> Work:
    """A function that makes one guided prediction for a batch of images, as ``dmp sample`` does at each step."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(setting.batch, *bare.sample_shape, generator=source).to(setting.device)
    labels = torch.randint(0, bare.num_classes, (setting.batch,), generator=source).to(setting.device)
    config = SampleConfig(guidance=guidance, guidance_channels="all")
    patched = denoiser.patched if isinstance(denoiser, Versions) else denoiser

    def work() -> None:
        kept = patched.at(TIMESTEP) if isinstance(patched, PatchedBackbone) else contextlib.nullcontext()
        with torch.inference_mode(), kept, autocast_of(setting):
            predict(denoiser, x, TIMESTEP, labels, backbone=bare, config=config, apart=apart)

    return work


def peak(work: Callable[[], object], setting: Setting) -> int:
    """Most bytes that a call has allocated at once, beside what was there before it."""
    work()
    if setting.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes))
