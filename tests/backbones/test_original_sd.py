"""Original single files of Stable Diffusion 1 and 2: all three parts are those that the file was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dmp_cli.backbones import load_backbone, reload_backbone
from dmp_cli.backbones.text import load_text
from dmp_cli.config import PatchConfig
from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.latents import load_codec
from dmp_cli.patching.attachment import create_patch
from tests.backbones.text_encoders import write_clip
from tests.builders import PIXELS, same_weights, tiny_dit, write_weights
from tests.zoo import original_sd as zoo

OBJECTIVE = {1: None, 2: "v_prediction"}


def tensors_of(version: int, models: Any) -> dict[str, torch.Tensor]:
    unet, vae, text = models
    words = zoo.clip_tensors(text) if version == 1 else zoo.open_clip_tensors(text)
    return {**zoo.unet_tensors(unet), **zoo.vae_tensors(vae), **words, **zoo.noise_buffers()}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "tokens") / "tokenizer"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_the_three_parts_of_a_file(tmp_path: Path, tokenizer: Path, version: int, averaged: bool, suffix: str) -> None:
    unet, vae, text = models = zoo.small_models(version)
    tensors = tensors_of(version, models)
    path = tmp_path / f"sd{suffix}"
    tensors = zoo.with_average(tensors) if averaged else tensors
    if suffix == ".ckpt":
        torch.save({"state_dict": tensors, "global_step": 840_000}, path)
    else:
        save_file(tensors, path)
    loaded = load_backbone(str(path), objective=OBJECTIVE[version], text=tokenizer)
    assert same_weights(loaded.core, unet)
    x, timesteps, states = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.randn(2, 16, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.core(x, timesteps, states).sample, unet(x, timesteps, states).sample, rtol=1e-6, atol=1e-6
        )
    assert loaded.schedule.kind == "scaled_linear"
    assert [remark.endswith("assumed the noise (--objective)") for remark in loaded.remarks] == [True] * (version == 1)
    assert loaded.schedule.prediction == (OBJECTIVE[version] or "epsilon")
    codec: Any = load_codec(None, loaded)
    assert same_weights(codec.vae, vae)
    assert codec.record.source == str(path)
    encoder = loaded.captions.encoder
    ours = encoder.model.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in text.state_dict().items() if name in ours)
    ids = torch.arange(16)[None]
    with torch.no_grad():
        expected = text(ids)[0]
        torch.testing.assert_close(encoder.model(ids)[0], expected, rtol=1e-6, atol=1e-6)


def test_a_patch_finds_the_file_and_the_tokenizer_again(tmp_path: Path, tokenizer: Path) -> None:
    save_file(tensors_of(1, zoo.small_models(1)), tmp_path / "sd.safetensors")
    loaded = load_backbone(str(tmp_path / "sd.safetensors"), text=tokenizer)
    loaded.captions.indices(["a fox"])
    record = create_patch(loaded, PatchConfig(), codec=PIXELS, image_size=64).record
    assert record is not None
    assert record.text is not None
    assert record.text.source == str(tokenizer)
    again = reload_backbone(record)
    assert again.record == loaded.record
    assert again.captions.encoder.record == record.text
    assert (
        load_text(tmp_path / "sd.safetensors", tokenizer=tokenizer.parent).encoder.record.digest == record.text.digest
    )


def test_a_file_without_a_tokenizer_says_where_to_get_one(tmp_path: Path) -> None:
    save_file(tensors_of(1, zoo.small_models(1)), tmp_path / "sd.safetensors")
    loaded = load_backbone(str(tmp_path / "sd.safetensors"))
    with pytest.raises(CheckpointError, match="holds no tokenizer, and none is in the hub's local cache") as caught:
        _ = loaded.captions
    assert "--text" in str(caught.value.hint)
    with pytest.raises(CheckpointError, match=f"holds no tokenizer, and there is none in {tmp_path}"):
        _ = load_backbone(str(tmp_path / "sd.safetensors"), text=tmp_path).captions


def test_a_unet_alone(tmp_path: Path) -> None:
    save_file(zoo.unet_tensors(zoo.small_models(1)[0]), tmp_path / "sd.safetensors")
    loaded = load_backbone(str(tmp_path / "sd.safetensors"), text=write_clip(tmp_path / "words"))
    assert loaded.codec is None
    assert loaded.text_folder == tmp_path / "words"
    assert loaded.captions.encoder.record.source == str(tmp_path / "words")


def test_a_stable_diffusion_2_needs_to_be_told_what_it_predicts(tmp_path: Path) -> None:
    save_file(tensors_of(2, zoo.small_models(2)), tmp_path / "sd.safetensors")
    with pytest.raises(CheckpointError, match="does not say whether it predicts noise or v") as caught:
        load_backbone(str(tmp_path / "sd.safetensors"))
    assert "--objective v_prediction for a 768-pixel" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.diffusion_model.label_emb.0.0.weight": torch.ones(2)}, "as in Stable Diffusion XL"),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(32, 9, 3, 3)}, "9 channels in and 4 out"),
        ({"alphas_cumprod": torch.linspace(1, 0, 1000)}, "keeps another noise schedule"),
        ({"model.diffusion_model.out.2.bias": torch.full((4,), float("nan"))}, "NaN in conv_out.bias"),
    ],
)
def test_other_models_of_that_layout_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    save_file({**tensors_of(1, zoo.small_models(1)), **changes}, tmp_path / "sd.safetensors")
    with pytest.raises(CheckpointError, match=words):
        load_backbone(str(tmp_path / "sd.safetensors"))


def test_text_for_a_backbone_that_reads_none(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "a.pt", tiny_dit().state_dict())
    with pytest.raises(ConfigError, match="--text is for a backbone that reads text"):
        load_backbone(path, num_classes=4, num_heads=2, text=tmp_path)
