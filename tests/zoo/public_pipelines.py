"""Whole pipelines as their repositories hold them: names of files, shards and variants, older configs, files beside.

Each is made of a tiny pipeline that ``save_pretrained`` wrote. Files beside it hold other numbers, so that one
that is read by mistake shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.backbones.flow_pipelines import write_flux_pipeline, write_sd3_pipeline
from tests.backbones.joined_pipelines import (
    write_auraflow_pipeline,
    write_cogview4_pipeline,
    write_hunyuan_pipeline,
    write_lumina2_pipeline,
    write_qwen_pipeline,
    write_sana_pipeline,
    write_zimage_pipeline,
)
from tests.backbones.pipelines import tiny_pixart, write_pipeline, write_xl_pipeline

from .diffusers_folders import PIXART_LEGACY, STEM, change_config, shard

_OF_TRANSFORMERS = "model"  # the stem of text encoders' weights
_SIGMA = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "solver_order": 2}


def beside(file: Path) -> None:
    """A file of the same weights for another program: tensors that are none of the pipeline's."""
    file.parent.mkdir(exist_ok=True)
    save_file({"model.diffusion_model.x": torch.full((4,), 100.0)}, file)


def add_fp16(folder: Path, *, stem: str = STEM) -> None:
    """An fp16 variant beside the weights; its numbers are others, as it must not be read where these are there."""
    tensors = {name: tensor.half() + 1 for name, tensor in load_file(folder / f"{stem}.safetensors").items()}
    save_file(tensors, folder / f"{stem}.fp16.safetensors", metadata={"format": "pt"})


def older(folder: Path, part: str, *without: str, version: str) -> None:
    """The config of ``part`` as a diffusers of that version wrote it, without fields that came later."""
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    told: dict[str, Any] = json.loads(file.read_text())
    kept = {key: value for key, value in told.items() if key not in without}
    file.write_text(json.dumps({**kept, "_diffusers_version": version}))


def only(folder: Path, *names: str) -> None:
    """The scheduler's config with these fields alone, as the first versions of its class had them."""
    file = folder / "scheduler" / "scheduler_config.json"
    told = json.loads(file.read_text())
    kept = ("_class_name", "_diffusers_version", "num_train_timesteps", *names)
    file.write_text(json.dumps({key: told[key] for key in kept}))


def sd3_medium(folder: Path) -> None:
    """stabilityai/stable-diffusion-3-medium-diffusers: before 3.5 and its fields, all encoders in two precisions."""
    write_sd3_pipeline(folder, dual_attention_layers=(), qk_norm=None)
    older(folder, "transformer", "dual_attention_layers", "qk_norm", version="0.29.0.dev0")
    only(folder, "shift")
    index = json.loads((folder / "model_index.json").read_text())
    for name in ("image_encoder", "feature_extractor"):
        index.pop(name, None)
    (folder / "model_index.json").write_text(json.dumps({**index, "_diffusers_version": "0.29.0.dev0"}))
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        add_fp16(folder / name, stem=_OF_TRANSFORMERS)
    shard(folder / "text_encoder_3", stem=_OF_TRANSFORMERS)


def sd3_without_t5(folder: Path) -> None:
    """The same, saved by a user without the T5."""
    write_sd3_pipeline(folder, third=False, dual_attention_layers=(), qk_norm=None)


def sd35_large(folder: Path) -> None:
    """stabilityai/stable-diffusion-3.5-large: two shards, and files for another program at the root."""
    write_sd3_pipeline(folder, dual_attention_layers=())
    shard(folder / "transformer")
    shard(folder / "text_encoder_3", stem=_OF_TRANSFORMERS)
    beside(folder / "sd3.5_large.safetensors")
    beside(folder / "text_encoders" / "clip_g.safetensors")


def sd35_medium(folder: Path) -> None:
    """stabilityai/stable-diffusion-3.5-medium: its first blocks have a second attention."""
    write_sd3_pipeline(folder)
    shard(folder / "text_encoder_3", stem=_OF_TRANSFORMERS)
    beside(folder / "sd3.5_medium.safetensors")
    beside(folder / "text_encoders" / "t5xxl_fp16.safetensors")


def flux(*, schnell: bool) -> Callable[[Path], None]:
    """black-forest-labs/FLUX.1-dev and -schnell: three shards, and the files of their own code at the root."""
    name = "schnell" if schnell else "dev"

    def write(folder: Path) -> None:
        write_flux_pipeline(folder, schnell=schnell)
        shard(folder / "transformer", count=3)
        shard(folder / "text_encoder_2", stem=_OF_TRANSFORMERS)
        only(
            folder,
            "base_image_seq_len",
            "base_shift",
            "max_image_seq_len",
            "max_shift",
            "shift",
            "use_dynamic_shifting",
        )
        beside(folder / f"flux1-{name}.safetensors")
        beside(folder / "ae.safetensors")

    return write


def sdxl(folder: Path) -> None:
    """stabilityai/stable-diffusion-xl-base-1.0: every part in two precisions, another VAE, single files at the root."""
    write_xl_pipeline(folder)
    for name, stem in (("unet", STEM), ("vae", STEM), ("text_encoder", "model"), ("text_encoder_2", "model")):
        add_fp16(folder / name, stem=stem)
    beside(folder / "sd_xl_base_1.0.safetensors")
    beside(folder / "vae_1_0" / f"{STEM}.safetensors")


def sdxl_fp16(folder: Path) -> None:
    """The same as `--include "*fp16*"` downloads it."""
    write_xl_pipeline(folder)
    for name, stem in (("unet", STEM), ("vae", STEM), ("text_encoder", "model"), ("text_encoder_2", "model")):
        add_fp16(folder / name, stem=stem)
        (folder / name / f"{stem}.safetensors").unlink()


def sigma(folder: Path) -> None:
    """PixArt-alpha/PixArt-Sigma-XL-2-1024-MS: the older class, and the T5 in shards."""
    model = tiny_pixart(interpolation_scale=2, use_additional_conditions=False)
    write_pipeline(
        folder, model, text="t5", name="PixArtSigmaPipeline", **{**_SIGMA, "_class_name": "DPMSolverMultistepScheduler"}
    )
    change_config(folder / "transformer", **PIXART_LEGACY)
    shard(folder / "text_encoder", stem=_OF_TRANSFORMERS)


def sharded(
    writer: Callable[..., Any], *, transformer: int, encoders: dict[str, int], **how: Any
) -> Callable[..., None]:
    """A pipeline whose transformer and text encoders are in so many shards; an encoder of 1 is in one file."""

    def write(folder: Path) -> None:
        writer(folder, **how)
        if transformer > 1:
            shard(folder / "transformer", count=transformer)
        for name, count in encoders.items():
            if count > 1:
                shard(folder / name, stem=_OF_TRANSFORMERS, count=count)

    return write


def auraflow(folder: Path) -> None:
    """fal/AuraFlow: two precisions of each part, and the weights of its own code at the root."""
    write_auraflow_pipeline(folder)
    for name, stem in (("transformer", STEM), ("vae", STEM), ("text_encoder", "model")):
        add_fp16(folder / name, stem=stem)
    shard(folder / "transformer", count=3)
    beside(folder / "aura_flow_0.1.safetensors")


def zimage(folder: Path) -> None:
    """Tongyi-MAI/Z-Image-Turbo: three shards of both, and a scheduler that states two fields."""
    sharded(write_zimage_pipeline, transformer=3, encoders={"text_encoder": 3})(folder)
    only(folder, "shift", "use_dynamic_shifting")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "stabilityai/stable-diffusion-3-medium-diffusers": sd3_medium,
    "Stable Diffusion 3 without its T5": sd3_without_t5,
    "stabilityai/stable-diffusion-3.5-medium": sd35_medium,
    "stabilityai/stable-diffusion-3.5-large": sd35_large,
    "black-forest-labs/FLUX.1-dev": flux(schnell=False),
    "black-forest-labs/FLUX.1-schnell": flux(schnell=True),
    "stabilityai/stable-diffusion-xl-base-1.0": sdxl,
    "Stable Diffusion XL, its fp16 files alone": sdxl_fp16,
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": sigma,
}
# Those that came later. That captions are encoded as their pipelines do it is tested for each family.
LATER: dict[str, Callable[[Path], None]] = {
    "fal/AuraFlow": auraflow,
    "Alpha-VLLM/Lumina-Image-2.0": sharded(write_lumina2_pipeline, transformer=1, encoders={"text_encoder": 2}),
    "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers": sharded(
        write_sana_pipeline, transformer=2, encoders={"text_encoder": 2}
    ),
    "Tongyi-MAI/Z-Image-Turbo": zimage,
    "Qwen/Qwen-Image": sharded(write_qwen_pipeline, transformer=9, encoders={"text_encoder": 4}),
    "THUDM/CogView4-6B": sharded(write_cogview4_pipeline, transformer=3, encoders={"text_encoder": 4}),
    "Tencent-Hunyuan/HunyuanDiT-v1.1-Diffusers": sharded(
        write_hunyuan_pipeline, transformer=1, encoders={"text_encoder": 1, "text_encoder_2": 2}
    ),
    "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers": sharded(
        write_hunyuan_pipeline, transformer=1, encoders={"text_encoder": 1, "text_encoder_2": 2}, style=False
    ),
}
