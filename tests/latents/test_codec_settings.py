"""The config of a VAE counts as its weights do: used, recorded, and compared where the record says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.config import CodecRecord
from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.latents.loading import load_codec, load_vae
from tests.builders import tiny_dit

from .autoencoders import kl_vae, noise, tiny_vae

MEAN, STD = [-1.6574, 1.097, 1.383, -0.6155], [8.4927, 5.9022, 5.3025, 5.3352]  # of playground-v2.5's VAE
pytestmark = pytest.mark.filterwarnings("ignore:.*local_dir_use_symlinks.*:UserWarning")  # diffusers asks the hub so


def write(folder: Path, **changes: Any) -> str:
    kl_vae(**{"shift_factor": None, **changes}).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scaling_factor": 0.13025}, "scaling_factor 0.31, not 0.13025"),
        ({"scaling_factor": 0.18215}, "scaling_factor 0.31, not the default"),
        ({"shift_factor": 0.1159}, "shift_factor the default, not 0.1159"),
        ({"latents_mean": MEAN, "latents_std": STD}, "latents_mean the default, not"),
        ({"act_fn": "relu"}, "act_fn the default, not relu"),
    ],
    ids=["scale", "default scale", "shift", "statistics", "activation"],
)
def test_the_same_weights_under_another_config_are_another_codec(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    backbone = tiny_dit(in_channels=4)
    record = load_codec(write(tmp_path / "a"), backbone).record
    other = write(tmp_path / "b", **changes)
    found = load_codec(other, backbone).record
    assert found.digest == record.digest
    with pytest.raises(
        ConfigError, match=f"another codec: {tmp_path / 'a'}, not {other}, whose config differs: {words}"
    ):
        load_codec(other, backbone, record=record)
    old = record.model_copy(update={"settings": None})  # as versions before this field recorded it
    assert load_codec(other, backbone, record=old).record == found


def test_what_changes_nothing_is_not_recorded(tmp_path: Path) -> None:
    one = load_vae(write(tmp_path / "a")).record
    other = load_vae(write(tmp_path / "b", sample_size=512, force_upcast=False, shift_factor=0.0)).record
    assert one.settings == other.settings
    assert "settings" not in CodecRecord().model_dump()
    assert CodecRecord(**one.model_dump()) == one


def test_statistics_of_latents_as_diffusers_pipelines_use_them(tmp_path: Path) -> None:
    codec = load_vae(write(tmp_path / "a", scaling_factor=0.5, latents_mean=MEAN, latents_std=STD))
    images = noise(2, 3, 16, 16).clamp(-1, 1)
    with torch.no_grad():
        z = codec.vae.encode(images).latent_dist.mean
        latents = codec.encode(images, noise=torch.zeros_like(z))
        for channel in range(4):
            expected = (z[:, channel] - MEAN[channel]) * 0.5 / STD[channel]
            torch.testing.assert_close(latents[:, channel], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(codec.decode(latents), codec.vae.decode(z).sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"latents_mean": MEAN},
        {"latents_mean": MEAN[:2], "latents_std": STD[:2]},
        {"latents_mean": MEAN, "latents_std": STD, "shift_factor": 0.1},
    ],
    ids=["no std", "too few", "with a shift"],
)
def test_statistics_that_say_too_little_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="latents_mean and latents_std, which are supported for all 4 channels"):
        load_vae(write(tmp_path / "a", **changes))


def test_a_vae_that_is_not_finite(tmp_path: Path) -> None:
    vae = kl_vae()
    with torch.no_grad():
        vae.decoder.conv_out.bias[0] = float("inf")
    vae.save_pretrained(tmp_path / "a")
    with pytest.raises(CheckpointError, match="a: its weights are not all finite: infinity in decoder"):
        load_vae(str(tmp_path / "a"))


@pytest.mark.parametrize("make", [kl_vae, tiny_vae])
def test_a_vae_in_half_precision_alone(tmp_path: Path, make: Any) -> None:
    made = make()
    made.half().save_pretrained(tmp_path / "a", variant="fp16")
    codec = load_vae(str(tmp_path / "a"))
    assert {tensor.dtype for tensor in codec.vae.parameters()} == {torch.float32}
    ours, theirs = codec.vae.state_dict(), made.float().state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())
