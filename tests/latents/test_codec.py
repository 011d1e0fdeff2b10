"""Images to latents and back, against the VAE's own methods."""

import logging

import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.backbones.native_file import save_backbone
from dmp_cli.config import CodecRecord
from dmp_cli.errors import CheckpointError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.latents.loading import load_codec
from dmp_cli.latents.sizes import image_size
from dmp_cli.storage.strict import digest_tensors
from tests.builders import tiny_dit

from .autoencoders import SCALE, SHIFT, kl_vae, noise

pytestmark = pytest.mark.filterwarnings("ignore:.*local_dir_use_symlinks.*:UserWarning")  # diffusers asks the hub so


def close(one, other):
    """Equal but for rounding: a convolution may round by where its weights lie in memory."""
    return one.shape == other.shape and (one - other).abs().max() <= 2e-6 * other.abs().max()


def test_a_kl_vae(vaes, latent_backbone):
    place, models = vaes
    codec, vae = load_codec(str(place / "kl"), latent_backbone), models["kl"]
    images = noise(2, 3, 16, 16).clamp(-1, 1)
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
    assert close(codec.encode(images, noise=torch.zeros(2, 4, 4, 4)), (posterior.mean - SHIFT) * SCALE)
    source = torch.Generator().manual_seed(5)
    drawn = posterior.sample(generator=source)
    got = codec.encode(images, noise=noise(2, 4, 4, 4, seed=5))
    assert close(got, (drawn - SHIFT) * SCALE)
    assert (posterior.std > 1e-3).all()  # the draw is one
    with torch.no_grad():
        assert close(codec.decode(got), vae.decode(got / SCALE + SHIFT).sample)
    assert codec.factor == 4
    assert image_size(codec, latent_backbone) == 32
    assert (codec.image_channels, codec.clips) == (3, False)
    about = codec.record.model_copy(update={"settings": None})
    assert about == CodecRecord(kind="vae", source=str(place / "kl"), digest=digest_tensors(vae.state_dict()))


def test_a_tiny_vae(vaes, latent_backbone):
    place, models = vaes
    codec, vae = load_codec(str(place / "tiny"), latent_backbone), models["tiny"]
    images = noise(2, 3, 16, 16).clamp(-1, 1)
    with torch.no_grad():
        latents = vae.encode(images).latents
        assert close(codec.encode(images, noise=torch.empty(0)), latents * SCALE)
        assert close(codec.decode(latents * SCALE), vae.decode(latents).sample)
    assert codec.factor == 16 // latents.shape[-1] == 2
    assert codec.record.kind == "tiny-vae"
    assert codec.record.digest == digest_tensors(vae.state_dict())


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_the_factor_is_what_the_encoder_does(tmp_path, latent_backbone, stages):
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * stages, "up_block_types": ("UpDecoderBlock2D",) * stages}
    kl_vae(block_out_channels=(4,) * stages, **kinds).save_pretrained(tmp_path)
    codec = load_codec(str(tmp_path), latent_backbone)
    latents = codec.encode(torch.zeros(1, 3, 16, 16), noise=torch.zeros(1))
    assert codec.factor == 16 // latents.shape[-1] == 2 ** (stages - 1)


def test_a_grey_vae(tmp_path, latent_backbone):
    kl_vae(in_channels=1, out_channels=1).save_pretrained(tmp_path)
    codec = load_codec(str(tmp_path), latent_backbone)
    assert codec.image_channels == 1
    assert codec.decode(codec.encode(torch.zeros(1, 1, 8, 8), noise=torch.zeros(1))).shape == (1, 1, 8, 8)


def test_a_frozen_vae_in_eval_mode(vaes, latent_backbone):
    heard = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("diffusers").addHandler(listener)
    codec = load_codec(str(vaes[0] / "kl"), latent_backbone)
    assert not codec.vae.training
    assert not any(parameter.requires_grad for parameter in codec.vae.parameters())
    assert not codec.encode(
        torch.zeros(1, 3, 8, 8),
        noise=torch.zeros(1),
    ).requires_grad
    logging.getLogger("diffusers").removeHandler(listener)
    assert not [text for text in heard if "accelerate" in text]  # no advice between a command's own lines


def test_a_pipeline_folder(vaes, latent_backbone, tmp_path):
    (tmp_path / "vae").symlink_to(vaes[0] / "kl")
    whole = load_codec(str(tmp_path), latent_backbone)
    assert whole.record.digest == load_codec(str(vaes[0] / "kl"), latent_backbone).record.digest
    assert whole.record.source == str(tmp_path)


def test_a_relative_folder_is_found_again_from_elsewhere(vaes, latent_backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(vaes[0])
    record = load_codec("kl", latent_backbone).record
    monkeypatch.chdir(tmp_path)
    assert load_codec(None, latent_backbone, record=record).record == record


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels(channels):
    backbone = tiny_dit(in_channels=channels)
    for choice in (None, "none"):
        codec = load_codec(choice, backbone)
        assert isinstance(codec, PixelCodec)
        assert codec.record == CodecRecord(kind="pixel")
        assert (codec.image_channels, codec.factor, codec.clips) == (channels, 1, True)
        images = noise(2, channels, 8, 8)
        assert codec.decode(codec.encode(images, noise=torch.empty(0))) is images
        assert image_size(codec, backbone) == 8


def test_which_codec_is_the_default(vaes, latent_backbone, tmp_path):
    place = str(vaes[0] / "tiny")
    record = load_codec(place, latent_backbone).record
    save_backbone(tmp_path / "a.safetensors", latent_backbone, codec=record, training={})
    own = load_backbone(str(tmp_path / "a.safetensors"))
    assert load_codec(None, own).record == record
    assert load_codec(str(vaes[0] / "kl"), own).record.kind == "vae"  # a choice wins over the backbone's own
    with pytest.raises(CheckpointError, match="no VAE at stabilityai/sd-vae-ft-ema") as caught:
        load_codec(None, latent_backbone)
    assert "--download" in caught.value.hint
