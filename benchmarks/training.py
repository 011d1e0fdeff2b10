"""The training table: the cost of a step, as ratios of paired runs in one process. ``python -m benchmarks training``.

On a CPU: DiT-B/2, float32, batch 4, one thread, processor time. On a GPU: DiT-L/2, bf16, batch 128, wall time, where
the clock waits for the device before each reading.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dmp_cli.config import CodecRecord
from dmp_cli.latents.codec import VAECodec
from dmp_cli.patching.prompts import add_mixture
from dmp_cli.training.held_out import HeldOut
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.memory import recomputed

from .paired import Row, ratios, summary
from .processes import two_processes
from .setting import LAYOUTS, UNMEASURED, Setting, autocast_of, backbone_of, loop_of, median_seconds, step_of


def weight_gradients_on(loop: TrainingLoop) -> Any:
    """A function for the same step that also computes the weight gradients of the backbone, and discards them."""
    backbone = loop.trainee.backbone
    backbone.requires_grad_(True)

    def discard() -> None:
        weights = list(backbone.parameters())
        assert sum(weight.grad is not None for weight in weights) > 0.9 * len(weights)
        backbone.zero_grad(set_to_none=True)

    return step_of(loop, after=discard)


def against_weight_gradients(setting: Setting) -> Row:
    """A step of DMP against the same step with weight gradients of the backbone."""
    works = {"on": weight_gradients_on(loop_of(setting)), "dmp": step_of(loop_of(setting))}
    found = ratios(works, base="on", rounds=setting.rounds, clock=setting.clock)
    return "DMP step / with weight gradients left on", summary(found["dmp"]), setting.limit("0.66", "0.70")


def in_half_precision(setting: Setting) -> Row:
    """A step in bf16 against the same step in float32. On a GPU all rows are in bf16, so it is not measured there."""
    what = "bf16 DMP step / float32 DMP step"
    if setting.device.type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return what, UNMEASURED, setting.limit("0.65", "-")
    half = loop_of(replace(setting, dtype="bf16"))
    works = {"fp32": step_of(loop_of(setting)), "bf16": step_of(half)}
    found = ratios(works, base="fp32", rounds=setting.rounds, clock=setting.clock)
    return what, summary(found["bf16"]), "0.65"


def with_store(setting: Setting) -> Row:
    """A step on latents from a store, against one that encodes 256 px images with a VAE of Stable Diffusion's size."""
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
        with autocast_of(setting):
            output = backbone(x, timesteps, timesteps)
        (x.grad,) = torch.autograd.grad(output.float().square().mean(), [x])

    found = ratios({"bare": bare, "dmp": step_of(loop)}, base="bare", rounds=setting.rounds, clock=setting.clock)
    return "DMP step / bare forward and backward to the input", summary(found["dmp"]), setting.limit("1.05", "1.03")


def patch_share(setting: Setting) -> Row:
    """The backward of gate and mixtures alone, with the step of the optimizer, against a whole step."""
    loop = loop_of(setting, ema=0.999)
    patch = loop.trainee.denoiser.patch
    tokens, width = patch.hidden_shapes[0]
    vector = torch.randn(setting.batch, width, device=setting.device)
    hidden = torch.randn(setting.batch, tokens, width, device=setting.device, requires_grad=True)
    arriving = torch.randn_like(hidden)
    step = step_of(loop)
    step()  # creates the state of the optimizer and the gradients

    def alone() -> None:
        weights = patch.spread(patch(vector).weights)
        added = [add_mixture(hidden, weights=w, prompts=p) for w, p in zip(weights, patch.prompts, strict=True)]
        torch.autograd.backward(added, [arriving] * len(added), inputs=list(patch.parameters()))
        loop.optimizer.step()
        loop._average()

    found = ratios({"step": step, "alone": alone}, base="step", rounds=setting.rounds, clock=setting.clock)
    return "patch gradients and optimizer / step", summary(found["alone"]), setting.limit("0.03", "0.02")


def utilisation(setting: Setting) -> Row:
    """Operations per second of forward and activation gradients, over the rate of dense bf16 matrix products."""
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
    seconds = median_seconds(step, setting)
    rate = 2 * side**3 / median_seconds(lambda: a @ b, setting)
    return what, f"{flops / seconds / rate:.3f} (a step takes {1000 * seconds:.1f} ms)", "0.45 (at least)"


def memory(setting: Setting) -> list[Row]:
    """Bytes of distinct tensors that autograd keeps from the forward to the backward pass."""
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
    """Bytes kept for the backward pass of one call, without the parameters themselves."""
    known = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)  # so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast_of(setting):
        output = call()
    assert output.requires_grad
    return sum(found.values())


def optimizer(setting: Setting) -> Row:
    """Optimizer and average in one fused call each, against a loop over the parameters."""
    fused = loop_of(setting, ema=0.999)
    step_of(fused)()
    parameters = [torch.nn.Parameter(p.detach().clone()) for p in fused.parameters]
    for parameter, own in zip(parameters, fused.parameters, strict=True):
        parameter.grad = copy.deepcopy(own.grad)
    plain = torch.optim.AdamW(parameters, lr=1e-4, foreach=False, fused=False, weight_decay=0.0)
    average = [parameter.detach().clone() for parameter in parameters]

    def fused_step() -> None:
        fused.optimizer.step()
        fused._average()

    def plain_step() -> None:
        plain.step()
        for mean, parameter in zip(average, parameters, strict=True):
            mean.mul_(0.999).add_(parameter.detach(), alpha=0.001)

    works = {"plain": plain_step, "fused": fused_step}
    found = ratios(works, base="plain", rounds=5 * setting.rounds, clock=setting.clock)
    return "optimizer and EMA of the patch, fused / plain loop", summary(found["fused"]), setting.limit("0.25", "-")


class _Latents:
    """Latents in place of images: as many as are drawn, each of a class of its own."""

    def __init__(self, count: int) -> None:
        source = torch.Generator().manual_seed(0)
        self.values = torch.randn(count, 4, 32, 32, generator=source).numpy()
        self.labels = torch.arange(count).numpy() % 1000

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int, *, mirrored: bool) -> Any:
        """One latent."""
        return self.values[index]


def held_out(setting: Setting) -> Row:
    """A measurement of the held-out loss with the defaults, 1,024 draws every 1,000 steps of 128 images, against these.

    The bare network is measured once in a run, so it is left out.
    """
    loop, draws = loop_of(setting), 1024 if setting.device.type == "cuda" else 64
    latents: Any = _Latents(draws)
    trainee = loop.trainee
    measured = HeldOut(trainee.backbone, trainee.codec, source=(latents, latents), draws=draws, dtype=setting.dtype)
    works = {"step": step_of(loop), "measure": lambda: measured.losses(trainee.denoiser)}
    found = ratios(works, base="step", rounds=setting.rounds, clock=setting.clock)
    share = (1024 / draws) / (1000 * 128 / setting.batch)
    return "held-out loss at its defaults / the steps", summary([r * share for r in found["measure"]]), "0.02"


def table(setting: Setting) -> Iterator[Row]:
    """Yield the rows of the table, each as soon as it is measured."""
    for measure in (
        against_weight_gradients,
        in_half_precision,
        with_store,
        against_bare,
        patch_share,
        utilisation,
        optimizer,
        held_out,
        two_processes,
    ):
        with LAYOUTS:
            row = measure(setting)
        yield row
    with LAYOUTS:
        rows = memory(setting)
    yield from rows
