"""Stable Diffusion XL: its two text encoders, its further conditions, and images as those of the stock pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmp_cli.backbones import as_backbone, load_backbone
from dmp_cli.backbones.text import load_text
from dmp_cli.config import CodecRecord, PatchConfig, Prompt, SampleConfig
from dmp_cli.errors import CheckpointError, PatchError
from dmp_cli.latents import load_codec
from dmp_cli.patching import attach, create_patch, load_patch, save_patch
from dmp_cli.runtime import randomness
from dmp_cli.sampling.sampler import resolve, sample
from tests.backbones.pipelines import tiny_unet, tiny_xl_unet, write_pipeline, write_xl_pipeline
from tests.backbones.text_encoders import write_clip
from tests.builders import filled_patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("xl")
    write_xl_pipeline(place)
    return place


@pytest.fixture
def pipe(folder: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_captions_are_encoded_as_the_pipeline_does(folder: Path, pipe: Any) -> None:
    table = load_text(folder)
    found = table.look_up(table.indices(["a red fox", "", "two cats"]))
    states, masks, pooled = found["states"], found["mask"], found["pooled"]
    with torch.no_grad():
        told, _, expected, _ = pipe.encode_prompt(["a red fox", "two cats"], do_classifier_free_guidance=False)
        _, null, _, null_pooled = pipe.encode_prompt("a red fox", do_classifier_free_guidance=True)
    assert states.shape == (3, 16, 32 + 48)
    assert pooled.shape == (3, 24)
    torch.testing.assert_close(states[[0, 2]], told, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pooled[[0, 2]], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(states[1], null[0])
    assert not states[1].any()
    assert torch.equal(pooled[1], null_pooled[0])
    assert masks.all()
    assert not states.requires_grad


def test_an_empty_caption_is_encoded_where_the_pipeline_says_so(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "force_zeros_for_empty_prompt": False}))
    found = load_text(other).look_up(torch.tensor([0]))
    states, pooled = found["states"], found["pooled"]
    assert states.abs().min() > 0
    assert pooled.abs().max() > 0


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_images_are_those_of_the_stock_pipeline(folder: Path, pipe: Any, sampler: str, patched: bool) -> None:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    kind = DDIMScheduler if sampler == "ddim" else DPMSolverMultistepScheduler
    more = {"clip_sample": False, "set_alpha_to_one": True} if sampler == "ddim" else {}
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **more)
    backbone = load_backbone(str(folder))
    denoiser: Any = backbone
    if patched:
        patch = filled_patch(backbone)
        denoiser = attach(backbone, patch)
        attach(pipe.unet, patch, force=True)
    prompts = (Prompt(text="a red fox"), Prompt(text="two cats", negative="fox"), Prompt(text="", negative=""))
    how: dict[str, Any] = {"sampler": sampler, "steps": 8, "guidance": 5.0, "prompts": prompts}
    config = resolve(SampleConfig(num_images=3, batch_size=3, **how), backbone)
    codec = load_codec(None, backbone)
    (ours,) = sample(denoiser, backbone=backbone, codec=codec, config=config, keep_latents=True)
    starts = torch.cat([randomness.normal("start", (4, 8, 8), seed=0, indices=[index]) for index in range(3)])
    for own, start, prompt in zip(ours, starts, prompts, strict=True):
        given: dict[str, Any] = {"negative_prompt": prompt.negative} if prompt.negative else {}
        call = {"latents": start[None], "num_inference_steps": 8, "guidance_scale": 5.0, "output_type": "latent"}
        if not prompt.text:  # ours is the null condition, on both sides
            null = {"prompt_embeds": torch.zeros(1, 16, 80), "pooled_prompt_embeds": torch.zeros(1, 24)}
            negative = {f"negative_{name}": value for name, value in null.items()}
            theirs = pipe(**null, **negative, height=64, width=64, **call).images
        else:
            theirs = pipe(prompt.text, height=64, width=64, **given, **call).images
        assert own.latent is not None
        found, expected = torch.from_numpy(own.latent), theirs[0]
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_a_patch_in_the_stock_pipeline(folder: Path, pipe: Any, tmp_path: Path) -> None:
    backbone = load_backbone(str(folder))
    patch = create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=64)
    save_patch(tmp_path / "fresh.safetensors", patch)
    call = {"num_inference_steps": 2, "output_type": "latent", "height": 64, "width": 64}

    def draw() -> np.ndarray:
        images: np.ndarray = pipe("a red fox", generator=torch.Generator().manual_seed(0), **call).images.numpy()
        return images

    before = draw()
    patched = attach(pipe.unet, load_patch(tmp_path / "fresh.safetensors"))
    assert np.array_equal(draw(), before)
    for parameter in patched.patch.parameters():
        parameter.data.fill_(0.3)
    assert not np.allclose(draw(), before, atol=1e-3)
    with patched.disabled():
        assert np.array_equal(draw(), before)
    with pytest.raises(PatchError, match="another backbone"):
        attach(as_backbone(tiny_unet()), load_patch(tmp_path / "fresh.safetensors"))


def test_what_does_not_go_together_is_said(tmp_path: Path) -> None:
    one = write_pipeline(tmp_path / "one", tiny_xl_unet(), text="clip")
    backbone = load_backbone(str(one))
    with pytest.raises(CheckpointError, match="needs two text encoders, and its pipeline has one"):
        backbone(torch.zeros(1, 4, 8, 8), torch.tensor([3]), backbone.captions.indices(["a fox"]))
    with pytest.raises(CheckpointError, match=r"addition_embed_type text_image \(further conditions\)"):
        as_backbone(
            tiny_xl_unet(
                addition_embed_type="text_image",
                encoder_hid_dim=32,
                encoder_hid_dim_type="text_proj",
                cross_attention_dim=32,
            )
        )
    clip = write_clip(tmp_path / "clip")
    shutil.copytree(clip / "text_encoder", clip / "text_encoder_2")
    with pytest.raises(CheckpointError, match="are not those of StableDiffusionXLPipeline, "):
        load_text(clip)
