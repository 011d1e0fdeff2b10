"""What stands beside ``dmp``, in the same run: ``python -m benchmarks peers``. Each ratio is the peer's time over ours.

Above 1 the peer is slower. Networks have random weights, one thread, float32; training and sampling are in processor
time. Peers are called as their own documentation shows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmp_cli import sample
from dmp_cli.backbones import as_backbone
from dmp_cli.config import TrainConfig
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import prepare

from . import peers_of_data
from .paired import Pair, ratios, summary
from .setting import LAYOUTS, Setting, backbone_of, loop_of, step_of
from .shaped import CAPTIONS, narrow_unet

SIDE, DRAWN, STEPS = 32, 8, 5  # pixels of the U-Net's images; images that are drawn at once, and denoising steps


def other_methods(setting: Setting) -> Iterator[Pair]:
    """A step of other ways to train the same DiT, over a step of DMP."""
    methods: dict[str, dict[str, Any]] = {
        "dmp": {},
        "peft's LoRA, r = 16, attention and MLP": {"method": "lora", "lora_rank": 16},
        "peft's DoRA, r = 16": {"method": "dora", "lora_rank": 16},
        "BitFit": {"method": "bitfit"},
        "prompt tuning": {"method": "prompt-tuning"},
    }
    works = {name: step_of(loop_of(setting, **options)) for name, options in methods.items()}
    works["full fine-tuning, a plain loop with torch's fused AdamW"] = plain_step(setting)
    found = ratios(works, base="dmp", rounds=setting.rounds, clock=setting.clock)
    for name in list(works)[1:]:
        yield f"{setting.backbone}, training step: {name} / DMP", summary(found[name])


def plain_step(setting: Setting) -> Callable[[], None]:
    """A step of full fine-tuning as one writes it by hand: no guard, no average, noise drawn in one call."""
    backbone = backbone_of(setting).requires_grad_(True)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0).to(setting.device)
    latents = torch.randn(setting.batch, 4, 32, 32, device=setting.device)
    labels = torch.randint(0, 1000, (setting.batch,), device=setting.device)

    def step() -> None:
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (setting.batch,), device=setting.device)
        share = kept[timesteps].view(-1, 1, 1, 1)
        noised = share.sqrt() * latents + (1 - share).sqrt() * noise
        loss = functional.mse_loss(backbone(noised, timesteps, labels)[:, :4], noise)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def build_unet(*, quick: bool) -> Any:
    """A U-Net of diffusers on 32x32 pixels, with attention in its lower half."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(32, 32, 64, 64) if quick else (64, 128, 256, 256),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )


def diffusers_training(unet: nn.Module, *, batch: int, rounds: int) -> Pair:
    """A step of diffusers' example of unconditional training over a step of DMP, on one U-Net."""
    config = TrainConfig(data="pictures", batch_size=batch)  # type: ignore[arg-type]
    loop = TrainingLoop(prepare(config, backbone=as_backbone(copy.deepcopy(unet)), codec=PixelCodec(3)), config)
    pixels = torch.randn(batch, 3, SIDE, SIDE)
    works = {"dmp": step_of(loop, pixels), "theirs": example_step(copy.deepcopy(unet), pixels)}
    found = ratios(works, base="dmp", rounds=rounds)
    return "U-Net, training step: diffusers' own, all weights / DMP", summary(found["theirs"])


def example_step(unet: nn.Module, pixels: Tensor) -> Callable[[], None]:
    """What diffusers' ``train_unconditional.py`` does in a step, without its average."""
    weights = list(unet.parameters())
    optimizer = torch.optim.AdamW(weights, lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    return step_of_examples(unet, pixels, optimizer=optimizer, rate="cosine")


def step_of_examples(
    unet: nn.Module, x0: Tensor, states: Tensor | None = None, *, optimizer: torch.optim.Optimizer, rate: str
) -> Callable[[], None]:
    """What diffusers' examples have in common in a step: ``x0`` is (B, C, H, W), ``states`` of captions (B, S, E)."""
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler

    scheduler, weights = DDPMScheduler(), optimizer.param_groups[0]["params"]
    rates = get_scheduler(rate, optimizer=optimizer, num_warmup_steps=500, num_training_steps=10_000)
    given = () if states is None else (states,)

    def step() -> None:
        noise, timesteps = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        noised = scheduler.add_noise(x0, noise, timesteps)
        loss = functional.mse_loss(unet(noised, timesteps, *given).sample, noise)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()

    return step


def text_training(*, batch: int, rounds: int, quick: bool) -> Iterator[Pair]:
    """Steps of diffusers' examples of text-to-image training over a step of DMP, on one U-Net.

    All have latents and captions that are encoded already, which the examples do at every step.
    """
    from peft import LoraConfig

    config = TrainConfig(data="latents", batch_size=batch, class_dropout=0.0)  # type: ignore[arg-type]
    backbone, latents, texts = narrow_unet(quick=quick), torch.randn(batch, 4, 32, 32), list(CAPTIONS[:batch])
    states = backbone.captions.look_up(backbone.captions.indices(texts))["states"]
    full, adapted = (copy.deepcopy(cast(Any, backbone.core)).train() for _ in range(2))
    adapted.requires_grad_(False)
    layers = ["to_k", "to_q", "to_v", "to_out.0"]
    adapted.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=layers))
    loop = TrainingLoop(prepare(config, backbone=backbone, codec=PixelCodec(4)), config)
    works = {"dmp": step_of(loop, latents, captions=texts)}
    for name, unet in (("train_text_to_image, all weights", full), ("train_text_to_image_lora, r = 4", adapted)):
        trained = [weight for weight in unet.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
        works[name] = step_of_examples(unet, latents, states, optimizer=optimizer, rate="constant")
    found = ratios(works, base="dmp", rounds=rounds)
    for name in list(works)[1:]:
        yield f"U-Net of SD 1.5's shape, training step: diffusers' {name} / DMP", summary(found[name])


def stock_pipeline(unet: nn.Module, *, rounds: int) -> Pair:
    """Images of a stock pipeline over the same number of ours from the same U-Net, without a patch."""
    from diffusers import DDIMPipeline, DDIMScheduler

    pipeline = DDIMPipeline(unet.eval(), DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    backbone = as_backbone(unet)

    def theirs() -> None:
        pipeline(batch_size=DRAWN, num_inference_steps=STEPS, output_type="pil")

    def ours() -> None:
        sample(backbone, n=DRAWN, batch_size=DRAWN, sampler="ddim", steps=STEPS)

    found = ratios({"ours": ours, "theirs": theirs}, base="ours", rounds=rounds)
    return f"U-Net, {DRAWN} images in {STEPS} DDIM steps: diffusers' DDIMPipeline / ours", summary(found["theirs"])


def table(setting: Setting, *, quick: bool) -> Iterator[Pair]:
    """Yield the rows of the table, each as soon as it is measured."""
    with LAYOUTS:
        rows = list(other_methods(setting))
    yield from rows
    unet = build_unet(quick=quick)
    yield diffusers_training(unet, batch=4, rounds=setting.rounds)
    yield from text_training(batch=4, rounds=setting.rounds, quick=quick)
    yield stock_pipeline(unet, rounds=setting.rounds)
    yield from peers_of_data.table(quick=quick)
