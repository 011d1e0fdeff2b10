"""Images to latents and back against the VAE's own methods, and the codecs that do not fit."""

import json
import logging
import os

import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.backbones.native_file import save_backbone
from dmp_cli.config import CodecRecord
from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.latents.codec import PixelCodec, image_size, load_codec
from dmp_cli.storage.weights import digest_tensors
from tests.builders import tiny_dit

pytestmark = pytest.mark.filterwarnings("ignore:.*local_dir_use_symlinks.*:UserWarning")  # diffusers asks the hub so
SCALE, SHIFT = 0.31, 0.12


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(one, other):
    """Equal but for rounding: a convolution may round by where its weights lie in memory."""
    return one.shape == other.shape and (one - other).abs().max() <= 2e-6 * other.abs().max()


def fill(model):
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(0.3 * noise(*parameter.shape, seed=index))
    return model.eval()


def kl_vae(**changes):
    from diffusers import AutoencoderKL

    sizes = {"block_out_channels": (4, 4, 4), "norm_num_groups": 2, "latent_channels": 4, "scaling_factor": SCALE}
    stages = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    return fill(AutoencoderKL(**{**sizes, **stages, "shift_factor": SHIFT, **changes}))


def tiny_vae(**changes):
    from diffusers import AutoencoderTiny

    sizes = {"encoder_block_out_channels": (4, 4), "decoder_block_out_channels": (4, 4), "latent_channels": 4}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), "scaling_factor": SCALE}
    return fill(AutoencoderTiny(**{**sizes, **blocks, **changes}))


@pytest.fixture
def vaes(tmp_path_factory):
    """Folders of both kinds, and the models they were saved from."""
    place, models = tmp_path_factory.mktemp("vaes"), {"kl": kl_vae(), "tiny": tiny_vae()}
    for name, model in models.items():
        model.save_pretrained(place / name)
    return place, models


@pytest.fixture
def latent_backbone():
    return tiny_dit(in_channels=4)


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
    assert codec.record == CodecRecord(kind="vae", source=str(place / "kl"), digest=digest_tensors(vae.state_dict()))


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


def test_what_is_taken_when_nothing_is_chosen(vaes, latent_backbone, tmp_path):
    place = str(vaes[0] / "tiny")
    record = load_codec(place, latent_backbone).record
    save_backbone(tmp_path / "a.safetensors", latent_backbone, codec=record, training={})
    own = load_backbone(str(tmp_path / "a.safetensors"))
    assert load_codec(None, own).record == record
    assert load_codec(str(vaes[0] / "kl"), own).record.kind == "vae"  # a choice wins over the backbone's own
    with pytest.raises(CheckpointError, match="no VAE at stabilityai/sd-vae-ft-ema") as caught:
        load_codec(None, latent_backbone)
    assert "--download" in caught.value.hint


def test_codecs_that_do_not_fit(vaes, latent_backbone):
    with pytest.raises(ConfigError, match="--vae none: the backbone has 4 channels"):
        load_codec("none", latent_backbone)
    with pytest.raises(ConfigError, match="makes 4 channels; the backbone denoises 3"):
        load_codec(str(vaes[0] / "kl"), tiny_dit())
    with pytest.raises(ConfigError, match="makes 4 channels; the backbone denoises 8"):
        load_codec(str(vaes[0] / "tiny"), tiny_dit(in_channels=8))


def test_another_codec_than_the_recorded_one_is_refused(vaes, latent_backbone, tmp_path):
    place = vaes[0]
    record = load_codec(str(place / "kl"), latent_backbone).record
    assert load_codec(str(place / "kl"), latent_backbone, record=record).record == record
    changed = kl_vae()
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0] += 1e-3
    changed.save_pretrained(tmp_path / "changed")
    kl_vae().save_pretrained(tmp_path / "copy")
    assert load_codec(str(tmp_path / "copy"), latent_backbone, record=record)  # the same weights elsewhere
    for other in (tmp_path / "changed", place / "tiny"):
        with pytest.raises(ConfigError, match=f"another codec: {record.source}, not {other}"):
            load_codec(str(other), latent_backbone, record=record)
    with pytest.raises(ConfigError, match="another codec: pixel space"):
        load_codec(str(place / "kl"), latent_backbone, record=CodecRecord())
    gone = record.model_copy(update={"source": str(tmp_path / "gone")})
    with pytest.raises(CheckpointError, match="gone does not exist"):
        load_codec(None, latent_backbone, record=gone)


@pytest.mark.parametrize("choice", ["./a/b", "/a", "a/b/c", "vae"])
def test_a_path_that_is_not_there(latent_backbone, choice):
    with pytest.raises(CheckpointError, match=f"{choice} does not exist"):
        load_codec(choice, latent_backbone)


@pytest.mark.parametrize("download", [False, True])
def test_a_hub_id_without_a_network(latent_backbone, download):
    with pytest.raises(CheckpointError, match="no VAE at someone/some-vae: "):
        load_codec("someone/some-vae", latent_backbone, download=download)


def break_folder(folder, how):
    weights, config = folder / "diffusion_pytorch_model.safetensors", folder / "config.json"
    fields = json.loads(config.read_text())
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif how == "empty":
        weights.write_bytes(b"")
    elif how == "no weights":
        weights.unlink()
    elif how == "no json":
        config.write_text("{")
    elif how == "list":
        config.write_text("[]")
    else:
        config.write_text(json.dumps({**fields, **how}))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "cannot be read as a VAE: Unable to load weights"),
        ("empty", "cannot be read as a VAE: Unable to load weights"),
        ("no weights", "cannot be read as a VAE: Error no file named"),
        ("no json", "cannot be read as a VAE: .*not a valid JSON file"),
        ("list", "cannot be read as a VAE"),
        ({"block_out_channels": [4, 4, 6]}, "cannot be read as a VAE"),
        ({"layers_per_block": 2}, r"tensors do not fit: \d+ missing_keys such as decoder"),
        ({"use_quant_conv": False}, "tensors do not fit: 2 unexpected_keys such as quant_conv.bias"),
        ({"_class_name": "UNet2DModel"}, "is a UNet2DModel, not an AutoencoderKL"),
    ],
    ids=str,
)
def test_a_damaged_folder(latent_backbone, tmp_path, how, words):
    kl_vae().save_pretrained(tmp_path)
    break_folder(tmp_path, how)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_codec(str(tmp_path), latent_backbone)
    assert str(tmp_path) in caught.value.message


class Attack:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_runs_code_is_refused(latent_backbone, tmp_path):
    kl_vae().save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"a": Attack(tmp_path / "executed")}, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read as a VAE"):
        load_codec(str(tmp_path), latent_backbone)
    assert not (tmp_path / "executed").exists()
