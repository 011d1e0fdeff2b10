"""What each row of ``benchmarks.gpu`` measures. Networks have random weights; nothing is downloaded."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from dmp_cli.backbones import Backbone
from dmp_cli.config import CodecRecord, PatchConfig, SampleConfig
from dmp_cli.patching import PatchedBackbone
from dmp_cli.patching.attachment import attach, create_patch
from dmp_cli.sampling.sampler import denoise, resolve

from .setting import LAYOUTS, Setting, autocast_of, build_nonzero, loop_of, step_of

_SIDE = 8192  # of the matrix product that says what the device can do


@dataclass(frozen=True)
class Place:
    """Where it is measured; ``dry``: on a CPU, as short as can be."""

    device: torch.device
    dry: bool

    @property
    def name(self) -> str:
        """The hardware."""
        return "CPU, dry" if self.dry else torch.cuda.get_device_name()

    @property
    def rounds(self) -> int:
        """How often a step is timed."""
        return 1 if self.dry else 15

    def setting(self, model: str, batch: int) -> Setting:
        """Of a training step of ``model``."""
        return Setting(model, batch, "bf16", self.device, self.rounds)

    def wait(self) -> None:
        """Until the device has done all of its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], place: Place) -> float:
    """Median wall time of a call, after two that are not counted."""
    times = []
    for _ in range(0 if place.dry else 2):
        work()
    for _ in range(place.rounds):
        place.wait()
        begin = time.perf_counter()
        work()
        place.wait()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def told(work: Callable[[], object], place: Place, *, batch: int) -> str:
    """Milliseconds, images a second, the share of the device's rate of matrix products, and peak memory."""
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(work, place)
    peak = torch.cuda.max_memory_allocated() / 2**30 if place.device.type == "cuda" else 0.0
    # Operations are counted as they are called, which those of compiled code are not.
    with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
        work()
    side = 64 if place.dry else _SIDE
    one, two = (torch.randn(side, side, device=place.device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * side**3 / seconds_of(lambda: one @ two, place)
    share = counter.get_total_flops() / seconds / rate
    return f"{1000 * seconds:.1f} ms, {batch / seconds:.0f} images/s, utilisation {share:.3f}, {peak:.1f} GiB"


def patched_of(backbone: Backbone, *, noise: float = 0.0, image_size: int = 256) -> PatchedBackbone:
    """With a fresh patch; ``noise``: its prompts and gate are as if they were trained."""
    patch = create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=image_size)
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return attach(backbone, patch.to(backbone.device), force=True)


def parity(place: Place) -> str:
    """A fresh patch changes no bit; forward, loss and ten steps of sampling are those of float64 on a CPU."""
    exact = build_nonzero("dit-s2").double()
    backbone = copy.deepcopy(exact).float().to(place.device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *backbone.sample_shape, generator=generator, dtype=torch.float64)
    timesteps, labels = torch.tensor([3, 900]), torch.tensor([1, 2])
    here = x.float().to(place.device), timesteps.to(place.device), labels.to(place.device)
    with torch.no_grad():
        bare = backbone(*here)
        patched = patched_of(backbone)
        same = torch.equal(patched(*here), bare)
        torch.manual_seed(0)
        for parameter in patched.patch.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape).to(parameter))
        other = attach(exact, copy.deepcopy(patched.patch).to("cpu", torch.float64), force=True)
        ours, theirs = patched(*here).double().cpu(), other(x, timesteps, labels)
    losses = [float(one.square().mean()) for one in (ours, theirs)]
    drawn, wanted = (_ten_steps(one).cpu() for one in (patched, other.float()))
    apart = float((drawn - wanted).abs().max() / wanted.abs().max())
    if not same:
        return "FAILED: a fresh patch changes the output"
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    loss = abs(losses[0] / losses[1] - 1)
    return f"no bit changed; forward {error:.1e}, loss {loss:.1e}, ten steps of DDIM {apart:.1e}"


def _ten_steps(patched: PatchedBackbone) -> torch.Tensor:
    """Two latents after ten steps of DDIM with guidance."""
    config = SampleConfig(num_images=2, batch_size=2, steps=10, sampler="ddim", guidance=1.5, classes=(1, 2))
    backbone = patched.backbone
    return denoise(patched, range(2), backbone=backbone, config=resolve(config, backbone), clips=False)


def training_step(place: Place, model: str, batch: int, method: str, *, compile: bool = False) -> str:
    """A whole step as a run takes it; or a bare forward."""
    setting = place.setting(model, batch)
    if method == "bare forward":
        backbone = build_nonzero(model).to(place.device)
        x = torch.randn(batch, *backbone.sample_shape, device=place.device)
        timesteps = torch.randint(0, 1000, (batch,), device=place.device)

        def forward() -> None:
            with torch.no_grad(), autocast_of(setting):
                backbone(x, timesteps, timesteps)

        return told(forward, place, batch=batch)
    with LAYOUTS:
        return told(step_of(loop_of(setting, method=method, compile=compile)), place, batch=batch)


def sampling_step(place: Place, model: str, batch: int) -> str:
    """One denoising step's network, patched over bare."""
    backbone = build_nonzero(model).to(place.device)
    patched = patched_of(backbone, noise=0.02)
    x = torch.randn(batch, *backbone.sample_shape, device=place.device)
    timesteps = torch.randint(0, 1000, (batch,), device=place.device)

    def forward() -> None:
        with torch.inference_mode(), autocast_of(place.setting(model, batch)):
            patched(x, timesteps, timesteps)

    with_patch = seconds_of(forward, place)
    with patched.disabled():
        bare = seconds_of(forward, place)
    return f"{with_patch / bare:.4f} ({1000 * with_patch:.1f} ms)"


def encoding_rate(place: Place) -> str:
    """Images a second through the encoder of a VAE of Stable Diffusion's size."""
    from diffusers import AutoencoderKL

    widths, count = ((32, 32), 2) if place.dry else ((128, 256, 512, 512), 32)
    down, up = ("DownEncoderBlock2D",) * len(widths), ("UpDecoderBlock2D",) * len(widths)
    vae: Any = AutoencoderKL(down_block_types=down, up_block_types=up, block_out_channels=widths, layers_per_block=2)
    vae.to(place.device)
    pixels = torch.randn(count, 3, 32 if place.dry else 256, 32 if place.dry else 256, device=place.device)

    def encode() -> None:
        with torch.inference_mode():
            vae.encode(pixels)

    return told(encode, place, batch=count)


def text_rate(place: Place) -> str:
    """Captions a second through a text encoder of CLIP-L's size."""
    from transformers import CLIPTextConfig, CLIPTextModel

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    large = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    encoder: Any = CLIPTextModel(CLIPTextConfig(**(small if place.dry else large))).to(place.device)
    count = 2 if place.dry else 64
    tokens = torch.randint(0, 1000, (count, 77), device=place.device)

    def encode() -> None:
        with torch.inference_mode():
            encoder(tokens)

    return told(encode, place, batch=count).replace("images", "captions")


def reductions(place: Place) -> str:
    """One process: what summing a patch's gradients costs, and a forward with weights spread by FSDP2."""
    from torch.distributed.fsdp import fully_shard

    backend = "nccl" if place.device.type == "cuda" else "gloo"
    os.environ.update(MASTER_ADDR="127.0.0.1")
    store = dist.HashStore()
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        values = torch.zeros(1000 if place.dry else 6_554_112, device=place.device)
        reduce = seconds_of(lambda: dist.all_reduce(values), place)
        backbone = build_nonzero("dit-s2" if place.dry else "dit-l2").to(place.device)
        x = torch.randn(2, *backbone.sample_shape, device=place.device)
        timesteps = torch.randint(0, 1000, (2,), device=place.device)
        with torch.no_grad():
            plain = backbone(x, timesteps, timesteps)
            for block in backbone.list_blocks():
                fully_shard(block.module, mesh=dist.device_mesh.init_device_mesh(place.device.type, (1,)))
            error = float((backbone(x, timesteps, timesteps) - plain).abs().max())
    finally:
        dist.destroy_process_group()
    return f"all_reduce {1000 * reduce:.2f} ms; FSDP2's forward differs by {error:.1e}"
