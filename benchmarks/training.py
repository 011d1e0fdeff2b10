"""The training table: what a step costs, as ratios of paired runs in one process. ``python -m benchmarks training``.

On a CPU: DiT-B/2, float32, batch 4, one thread, processor time. On a GPU: DiT-L/2, bf16, batch 128, wall time between
two waits for the device.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dmp_cli.backbones import build_backbone
from dmp_cli.backbones.base import Backbone
from dmp_cli.config import CodecRecord, TrainConfig
from dmp_cli.data.batches import Batch
from dmp_cli.latents.codec import Codec, PixelCodec, VAECodec
from dmp_cli.patching.prompts import add_mixture
from dmp_cli.runtime.distributed import World, find_world, leave
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.memory import arranged, recomputed
from dmp_cli.training.methods import prepare

from .paired import Clock, Row, ratios, summary

UNMEASURED = "not measured here"
_LAID_OUT = contextlib.ExitStack()  # half weights and TF32, as in a run, for as long as a row is measured


@dataclass(frozen=True)
class Setting:
    """What a table is measured on."""

    backbone: str
    batch: int
    dtype: str
    device: torch.device
    rounds: int

    @property
    def clock(self) -> Clock:
        """Processor time on a CPU; on a GPU wall time, once it has done what it was given."""
        if self.device.type == "cpu":
            return time.process_time

        def after_all() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return after_all

    def limit(self, on_cpu: str, on_gpu: str) -> str:
        return on_cpu if self.device.type == "cpu" else on_gpu


def cpu(*, quick: bool) -> Setting:
    """The CPU's column."""
    return Setting("dit-s2" if quick else "dit-b2", 4, "fp32", torch.device("cpu"), 3 if quick else 9)


def gpu(*, quick: bool) -> Setting:
    """The GPU's column."""
    return Setting("dit-b2" if quick else "dit-l2", 128, "bf16", torch.device("cuda"), 3 if quick else 15)


def backbone_of(setting: Setting) -> Backbone:
    """Random weights, none of them zero, so that gradients flow."""
    backbone = build_backbone(setting.backbone, device="cpu")
    backbone.initialise(seed=0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return backbone.to(setting.device)


def loop_of(
    setting: Setting, *, codec: Codec | None = None, world: World | None = None, **changes: Any
) -> TrainingLoop:
    """A loop that trains a patch on latents that are there."""
    size = setting.batch * (world.size if world else 1)
    options: dict[str, Any] = {"batch_size": size, "dtype": setting.dtype, **changes}
    config = TrainConfig(data=Path("latents"), **options)
    trainee = prepare(config, backbone=backbone_of(setting), codec=codec or PixelCodec(4))
    _LAID_OUT.enter_context(arranged(trainee, config, world or World(), setting.device))
    return TrainingLoop(trainee, config, world=world)


def step_of(loop: TrainingLoop, values: Tensor | None = None, *, after: Callable[[], None] | None = None) -> Any:
    """A whole step as a run takes it: draws, loss, backward, guard, optimizer."""
    count = len(loop.places)
    latents = torch.randn(count, 4, 32, 32) if values is None else values
    labels, indices = torch.randint(0, 1000, (count,)), torch.arange(count)

    def step() -> None:
        batch = Batch(step=loop.step, values=latents, labels=labels, indices=indices, bad=[])
        loop.advance(loop.prepare(batch))
        loop.guard.check()
        if after is not None:
            after()

    return step


def weight_gradients_on(loop: TrainingLoop) -> Any:
    """The same step with the backbone's weight gradients computed, and thrown away."""
    backbone = loop.trainee.backbone
    backbone.requires_grad_(True)

    def forget() -> None:
        weights = list(backbone.parameters())
        assert sum(weight.grad is not None for weight in weights) > 0.9 * len(weights)
        backbone.zero_grad(set_to_none=True)

    return step_of(loop, after=forget)


def against_weight_gradients(setting: Setting) -> Row:
    works = {"on": weight_gradients_on(loop_of(setting)), "dmp": step_of(loop_of(setting))}
    found = ratios(works, base="on", rounds=setting.rounds, clock=setting.clock)
    return "DMP step / with weight gradients left on", summary(found["dmp"]), setting.limit("0.66", "0.70")


def in_half_precision(setting: Setting) -> Row:
    what = "bf16 DMP step / float32 DMP step"
    if setting.device.type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return what, UNMEASURED, setting.limit("0.65", "-")
    half = loop_of(replace(setting, dtype="bf16"))
    works = {"fp32": step_of(loop_of(setting)), "bf16": step_of(half)}
    found = ratios(works, base="fp32", rounds=setting.rounds, clock=setting.clock)
    return what, summary(found["bf16"]), "0.65"


def with_store(setting: Setting) -> Row:
    """Latents drawn from what a store holds, against the VAE of Stable Diffusion's size encoding live at 256 px."""
    from diffusers import AutoencoderKL

    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    sizes: dict[str, Any] = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    vae = AutoencoderKL(down_block_types=down, up_block_types=up, sample_size=256, **sizes)
    codec = VAECodec(vae.to(setting.device).eval().requires_grad_(False), CodecRecord(kind="vae"))
    pixels = torch.randint(0, 256, (setting.batch, 3, 256, 256), dtype=torch.uint8)
    mean = torch.randn(setting.batch, 4, 32, 32)
    works = {
        "live": step_of(loop_of(setting, codec=codec), pixels),
        "store": step_of(loop_of(setting, codec=codec), torch.cat([mean, mean.abs()], dim=1)),
    }
    found = ratios(works, base="live", rounds=max(3, setting.rounds // 2), clock=setting.clock)
    return "DMP step with the latent store / encoding live", summary(found["store"]), setting.limit("0.32", "0.5")


def against_bare(setting: Setting) -> Row:
    """A whole step against forward and backward of the frozen backbone alone, down to its input."""
    loop = loop_of(setting)
    backbone = backbone_of(setting).requires_grad_(False)
    x = torch.randn(setting.batch, 4, 32, 32, device=setting.device, requires_grad=True)
    timesteps = torch.randint(0, 1000, (setting.batch,), device=setting.device)

    def bare() -> None:
        with _autocast(setting):
            output = backbone(x, timesteps, timesteps)
        (x.grad,) = torch.autograd.grad(output.float().square().mean(), [x])

    found = ratios({"bare": bare, "dmp": step_of(loop)}, base="bare", rounds=setting.rounds, clock=setting.clock)
    return "DMP step / bare forward and backward to the input", summary(found["dmp"]), setting.limit("1.05", "1.03")


def patch_share(setting: Setting) -> Row:
    """Backward of gate and mixtures by themselves, and the optimizer's step, over a whole step."""
    loop = loop_of(setting, ema=0.999)
    patch = loop.trainee.denoiser.patch
    tokens, width = patch.hidden_shapes[0]
    vector = torch.randn(setting.batch, width, device=setting.device)
    hidden = torch.randn(setting.batch, tokens, width, device=setting.device, requires_grad=True)
    arriving = torch.randn_like(hidden)
    step = step_of(loop)
    step()  # the optimizer has its state, the parameters their gradients

    def alone() -> None:
        weights = patch.spread(patch(vector).weights)
        added = [add_mixture(hidden, weights=w, prompts=p) for w, p in zip(weights, patch.prompts, strict=True)]
        torch.autograd.backward(added, [arriving] * len(added), inputs=list(patch.parameters()))
        loop.optimizer.step()
        loop._average()

    found = ratios({"step": step, "alone": alone}, base="step", rounds=setting.rounds, clock=setting.clock)
    return "patch gradients and optimizer / step", summary(found["alone"]), setting.limit("0.03", "0.02")


def utilisation(setting: Setting) -> Row:
    """Counted operations of forward and activation gradients per second / the rate of dense bf16 matrix products."""
    what = "model FLOP utilisation"
    if setting.device.type == "cpu":
        return what, UNMEASURED, "-"
    loop = loop_of(setting)
    step = step_of(loop)
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()
    side = 8192
    a, b = (torch.randn(side, side, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = _median(step, setting)
    rate = 2 * side**3 / _median(lambda: a @ b, setting)
    return what, f"{flops / seconds / rate:.3f} (a step takes {1000 * seconds:.1f} ms)", "0.45 (at least)"


def memory(setting: Setting) -> list[Row]:
    """Bytes of distinct tensors that autograd keeps from the forward to the backward."""
    loop = loop_of(setting)
    backbone, denoiser = loop.trainee.backbone, loop.trainee.denoiser
    x = torch.randn(setting.batch, 4, 32, 32, device=setting.device)
    timesteps = torch.randint(0, 1000, (setting.batch,), device=setting.device)
    call = functools.partial(denoiser, x, timesteps, timesteps)
    frozen = kept(call, setting, denoiser)
    with recomputed(backbone):
        least = kept(call, setting, denoiser)
    backbone.requires_grad_(True)
    full = kept(call, setting, denoiser)
    what = "activation memory, DMP / weight gradients left on"
    return [
        (what, f"{frozen / full:.3f} ({frozen / 2**20:.0f} of {full / 2**20:.0f} MiB)", "0.52"),
        (
            f"{what}, with --gradient-checkpointing",
            f"{least / full:.3f} ({least / 2**20:.0f} MiB)",
            setting.limit("0.08", "0.10"),
        ),
    ]


def kept(call: Callable[[], Tensor], setting: Setting, module: torch.nn.Module) -> int:
    """Bytes kept for the backward of one call, the parameters themselves left out."""
    known = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)  # or its address would be used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _autocast(setting):
        output = call()
    assert output.requires_grad
    return sum(found.values())


def optimizer(setting: Setting) -> Row:
    """The fused optimizer and the average in one call each, against a loop over the parameters."""
    fused = loop_of(setting, ema=0.999)
    step_of(fused)()
    parameters = [torch.nn.Parameter(p.detach().clone()) for p in fused.parameters]
    for parameter, own in zip(parameters, fused.parameters, strict=True):
        parameter.grad = copy.deepcopy(own.grad)
    plain = torch.optim.AdamW(parameters, lr=1e-4, foreach=False, fused=False, weight_decay=0.0)
    average = [parameter.detach().clone() for parameter in parameters]

    def at_once() -> None:
        fused.optimizer.step()
        fused._average()

    def one_by_one() -> None:
        plain.step()
        for mean, parameter in zip(average, parameters, strict=True):
            mean.mul_(0.999).add_(parameter.detach(), alpha=0.001)

    works = {"plain": one_by_one, "fused": at_once}
    found = ratios(works, base="plain", rounds=5 * setting.rounds, clock=setting.clock)
    return "optimizer and EMA of the patch, fused / plain loop", summary(found["fused"]), setting.limit("0.25", "-")


def two_processes(setting: Setting) -> Row:
    """Images per second of two gloo processes over those of one, each with the same images a step and one thread."""
    what = "two gloo processes on two cores / one on one, images/s"
    if setting.device.type != "cpu" or (os.cpu_count() or 1) < 2:
        return what, UNMEASURED, setting.limit("1.8 (at least)", "-")
    found = []
    for _ in range(3):
        one, two = (_seconds_a_step(setting, size) for size in (1, 2))
        found.append(2 * one / two)
    return what, summary(found), "1.8 (at least)"


def _seconds_a_step(setting: Setting, size: int) -> float:
    context = multiprocessing.get_context("spawn")
    results: Any = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [context.Process(target=_worker, args=(setting, size, rank, port, results)) for rank in range(size)]
    for process in processes:
        process.start()
    seconds = results.get()
    for process in processes:
        process.join()
    return seconds


def _worker(setting: Setting, size: int, rank: int, port: int, results: Any) -> None:
    torch.set_num_threads(1)
    place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    with find_world().connected(setting.device) as world:
        step = step_of(loop_of(setting, world=world))
        step()
        world.wait()
        start, steps = time.perf_counter(), setting.rounds
        for _ in range(steps):
            step()
        if world.is_first:
            results.put((time.perf_counter() - start) / steps)
    leave(0)


def _median(work: Callable[[], object], setting: Setting) -> float:
    work()
    times = []
    for _ in range(setting.rounds):
        start = setting.clock()
        work()
        times.append(setting.clock() - start)
    return sorted(times)[len(times) // 2]


def _autocast(setting: Setting) -> Any:
    if setting.dtype == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(setting.device.type, dtype=torch.bfloat16)


def table(setting: Setting) -> Iterator[Row]:
    """The rows, each as soon as it is measured."""
    for measure in (
        against_weight_gradients,
        in_half_precision,
        with_store,
        against_bare,
        patch_share,
        utilisation,
        optimizer,
        two_processes,
    ):
        with _LAID_OUT:
            row = measure(setting)
        yield row
    with _LAID_OUT:
        rows = memory(setting)
    yield from rows
