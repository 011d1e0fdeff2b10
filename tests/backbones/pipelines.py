"""Tiny random pipelines in the folders that diffusers writes: Stable Diffusion's, PixArt's, and parts of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

STABLE_DIFFUSION = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


def tiny_unet(*, text_width: int = 32, seed: int = 0, **changes: Any) -> Any:
    """A text-conditional U-Net of two stages, five blocks, for 16x16 latents."""
    from diffusers import UNet2DConditionModel

    sizes: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": text_width,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }
    return randomise(UNet2DConditionModel(**{**sizes, **changes}), seed=seed)


def tiny_plain_unet(*, seed: int = 0, **changes: Any) -> Any:
    """An unconditional U-Net for 8x8 RGB pixels."""
    from diffusers import UNet2DModel

    sizes: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return randomise(UNet2DModel(**{**sizes, **changes}), seed=seed)


def tiny_pixart(*, text_width: int = 32, seed: int = 0, **changes: Any) -> Any:
    """A PixArt of two blocks and 16 tokens for 8x8 latents."""
    from diffusers import PixArtTransformer2DModel

    sizes: dict[str, Any] = {
        "sample_size": 8,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 2,
        "cross_attention_dim": 16,
        "caption_channels": text_width,
        "norm_num_groups": 4,
    }
    return randomise(PixArtTransformer2DModel(**{**sizes, **changes}), seed=seed)


def tiny_vae(*, seed: int = 0) -> Any:
    """A VAE of factor 2 for RGB images and 4-channel latents."""
    from diffusers import AutoencoderKL

    stages = {"block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2, "norm_num_groups": 4}
    return randomise(AutoencoderKL(**stages, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4), seed=seed)


def randomise(module: Any, *, seed: int) -> Any:
    """Fill every parameter with small normal numbers, none zero, so that every part shows in the output."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=source))
    return module.eval()


def write_scheduler(folder: Path, **changes: Any) -> Path:
    """``scheduler_config.json`` as Stable Diffusion's, with changes."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"_class_name": "PNDMScheduler", **STABLE_DIFFUSION, **changes}
    (folder / "scheduler_config.json").write_text(json.dumps(content))
    return folder


def write_pipeline(
    folder: Path, denoiser: Any, *, text: str | None = "clip", name: str = "StableDiffusionPipeline", **schedule: Any
) -> Path:
    """A pipeline folder around ``denoiser``: its VAE, scheduler, and the text encoder of a kind (None: none)."""
    from tests.backbones.text_encoders import write_clip, write_t5

    part = "unet" if type(denoiser).__name__.startswith("UNet") else "transformer"
    denoiser.save_pretrained(folder / part)
    tiny_vae().save_pretrained(folder / "vae")
    write_scheduler(folder / "scheduler", **schedule)
    if text is not None:
        (write_clip if text == "clip" else write_t5)(folder)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
    return folder


def write_stock_pipeline(folder: Path) -> Any:
    """A whole StableDiffusionPipeline with tiny random parts, saved in ``folder`` with its own ``save_pretrained``."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    from tests.backbones.text_encoders import write_clip

    write_clip(folder)
    pipe = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=tiny_unet(),
        scheduler=DDIMScheduler(**STABLE_DIFFUSION, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    return pipe


def tiny_xl_unet(*, seed: int = 0, **changes: Any) -> Any:
    """A U-Net of Stable Diffusion XL's kind for 8x8 latents: two text encoders of widths 32 and 48, pooled to 24."""
    sizes: dict[str, Any] = {
        "sample_size": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 24,
    }
    return tiny_unet(text_width=32 + 48, seed=seed, **{**sizes, **changes})


def write_xl_pipeline(folder: Path, **changes: Any) -> Any:
    """A whole StableDiffusionXLPipeline with tiny random parts, saved in ``folder``; ``changes`` are its options."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    from tests.backbones.text_encoders import write_clip, write_projected_clip

    write_projected_clip(write_clip(folder))
    stages = 4  # factor 8
    vae = AutoencoderKL(
        block_out_channels=(8,) * stages,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    pipe = StableDiffusionXLPipeline(
        vae=randomise(vae, seed=1),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        unet=tiny_xl_unet(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
        **changes,
    )
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def write_captioned(
    folder: Path,
    *,
    count: int = 6,
    size: int = 32,
    seed: int = 0,
    words: tuple[str, ...] = ("a red fox", "a blue bird", "two cats"),
) -> Path:
    """``count`` flat RGB images with a caption each, one of ``words``, in metadata.jsonl."""
    from tests.builders import write_images

    write_images(folder, count=count, size=size, classes=0, seed=seed)
    lines = [
        {"file_name": path.name, "text": words[index % len(words)]}
        for index, path in enumerate(sorted(folder.glob("*.png")))
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
