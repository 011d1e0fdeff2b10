"""Codecs that do not fit, are damaged, or are not there end in a clean error."""

import json
import os
import sys

import pytest
import torch
from safetensors.torch import load_file

from dmp_cli.config import CodecRecord
from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.latents.loading import load_codec
from tests.builders import tiny_dit
from tests.zoo.diffusers_folders import as_hub_cache

from .autoencoders import kl_vae

pytestmark = pytest.mark.filterwarnings("ignore:.*local_dir_use_symlinks.*:UserWarning")  # diffusers asks the hub so


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
        ({"_class_name": "UNet2DModel"}, "is a UNet2DModel, not one of AutoencoderKL"),
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
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.bin would run code .*system"):
        load_codec(str(tmp_path), latent_backbone)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("place", ["folder", "hub", "fp16", "shards"])
def test_a_pickle_of_tensors_is_read_by_our_reader(place, latent_backbone, tmp_path, monkeypatch):
    """Also with the names that attention layers had in older files, which diffusers knows."""
    folder = tmp_path / "vae"
    kl_vae().save_pretrained(folder)
    expected = load_codec(str(folder), latent_backbone).record
    file = folder / "diffusion_pytorch_model.safetensors"
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {} if place == "shards" else renamed  # which diffusers does not know in shards
    tensors = {}
    for name, tensor in load_file(file).items():
        for new, old in renamed.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        tensors[name] = tensor
    assert any(".query." in name for name in tensors) == bool(renamed)
    file.unlink()
    if place == "shards":
        names = [f"diffusion_pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
        parts = {names[n]: dict(list(tensors.items())[n::2]) for n in (0, 1)}
        for name, part in parts.items():
            torch.save(part, folder / name)
        index = {"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}
        (folder / "diffusion_pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        torch.save(tensors, folder / f"diffusion_pytorch_model{'.fp16' if place == 'fp16' else ''}.bin")
    if place == "hub":
        cache = tmp_path / "hub" / "models--some--vae"
        (cache / "refs").mkdir(parents=True)
        (cache / "refs" / "main").write_text(as_hub_cache(folder, cache).name)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("diffusers.configuration_utils.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr("diffusers.models.model_loading_utils.torch.load", not_called(torch.load))
    found = load_codec("some/vae" if place == "hub" else str(folder), latent_backbone).record
    assert (found.digest, found.settings) == (expected.digest, expected.settings)


def not_called(load):
    """``torch.load`` for our own reader alone."""

    def checked(*arguments, **options):
        assert sys._getframe(1).f_globals["__name__"] == "dmp_cli.storage.pickles"
        return load(*arguments, **options)

    return checked
