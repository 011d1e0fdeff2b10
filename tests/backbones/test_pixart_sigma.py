"""PixArt-Sigma: captions of 300 tokens, and images as those of the stock pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.backbones.text import load_text
from dmp_cli.config import PatchConfig, Prompt, SampleConfig, TextRecord
from dmp_cli.errors import ConfigError
from dmp_cli.latents import load_codec
from dmp_cli.patching import attach, create_patch, save_patch
from dmp_cli.pipeline import NetworkOptions, load_patched
from dmp_cli.runtime import randomness
from dmp_cli.sampling.sampler import resolve, sample
from tests.backbones.pipelines import tiny_pixart, tiny_vae, write_pipeline
from tests.builders import filled_patch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    changes = {"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "linear"}
    noise = {"beta_start": 1e-4, "beta_end": 0.02}
    return write_pipeline(tmp_path / "sigma", tiny_pixart(), text="t5", name="PixArtSigmaPipeline", **changes, **noise)


def test_captions_have_300_tokens(folder: Path, tmp_path: Path) -> None:
    table = load_text(folder)
    found = table.look_up(table.indices(["a red fox", ""]))
    states, masks = found["states"], found["mask"]
    assert states.shape == (2, 300, 32)
    assert masks.sum(1).tolist() == [4, 1]
    assert table.encoder.record.length == 300
    alpha = write_pipeline(tmp_path / "alpha", tiny_pixart(), text="t5", name="PixArtAlphaPipeline")
    plain = load_text(alpha).encoder
    assert plain.length == 120
    assert "length" not in plain.record.model_dump()  # records of earlier versions stay as they were
    assert TextRecord(**plain.record.model_dump()) == plain.record


@pytest.mark.parametrize("patched", [False, True])
def test_latents_are_those_of_the_stock_pipeline(folder: Path, patched: bool) -> None:
    from diffusers import DDIMScheduler, PixArtSigmaPipeline

    encoder = load_text(folder).encoder
    backbone = load_backbone(str(folder))
    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False)
    pipe: Any = PixArtSigmaPipeline(
        transformer=tiny_pixart(),
        vae=tiny_vae(),
        tokenizer=encoder.tokenizer,
        text_encoder=encoder.model,  # type: ignore[union-attr]
        scheduler=scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    denoiser: Any = backbone
    if patched:
        patch = filled_patch(backbone)
        denoiser = attach(backbone, patch)
        attach(pipe.transformer, patch, force=True)
    prompts = (Prompt(text="a red fox"), Prompt(text="two cats"))
    config = SampleConfig(num_images=2, batch_size=2, sampler="ddim", steps=5, guidance=4.5, prompts=prompts)
    how: dict[str, Any] = {"codec": load_codec(None, backbone), "config": resolve(config, backbone)}
    (ours,) = sample(denoiser, backbone=backbone, **how, keep_latents=True)
    starts = torch.cat([randomness.normal("start", (4, 8, 8), seed=0, indices=[index]) for index in range(2)])
    size = 8 * pipe.vae_scale_factor
    told = {"height": size, "width": size, "use_resolution_binning": False, "output_type": "latent"}
    theirs = pipe(
        [prompt.text for prompt in prompts], latents=starts, num_inference_steps=5, guidance_scale=4.5, **told
    ).images
    for own, other in zip(ours, theirs, strict=True):
        assert own.latent is not None
        assert (torch.from_numpy(own.latent) - other).norm() <= 1e-5 * other.norm()


def test_a_patch_of_other_captions_is_refused(folder: Path, tmp_path: Path) -> None:
    """A patch that an earlier version trained on 120 tokens of the same pipeline."""
    backbone = load_backbone(str(folder))
    codec = load_codec(None, backbone)
    patch = create_patch(backbone, PatchConfig(), codec=codec.record, image_size=8 * codec.factor)
    assert patch.record is not None
    assert patch.record.text is not None
    old = patch.record.text.model_copy(update={"length": None})
    patch.record = patch.record.model_copy(update={"text": old})
    save_patch(tmp_path / "old.safetensors", patch)
    with pytest.raises(ConfigError, match="captions of 120 tokens, and this pipeline has 300"):
        load_patched(tmp_path / "old.safetensors", NetworkOptions(), "cpu")
    load_patched(tmp_path / "old.safetensors", NetworkOptions(), "cpu", force=True)
