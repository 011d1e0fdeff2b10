"""dmp_cli.latents.kept: what is learnt from a kept latent is that latent, whatever the codec's scaling."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmp_cli.config import CodecRecord, SampleConfig
from dmp_cli.data import find_images
from dmp_cli.errors import DataError
from dmp_cli.latents import Codec, KeptLatents, find_kept
from dmp_cli.latents.codec import PixelCodec, VAECodec
from dmp_cli.sampling import Plan, SampleFolder
from tests.builders import tiny_dit

from .autoencoders import kl_vae, tiny_vae

STATISTICS = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.5, 2.0, 1.0, 3.0], "shift_factor": None}


def codec_of(kind: str) -> VAECodec:
    vae = {"kl": kl_vae, "tiny": tiny_vae, "normalised": lambda: kl_vae(**STATISTICS)}[kind]()
    return VAECodec(vae, CodecRecord(kind="tiny-vae" if kind == "tiny" else "vae", source="here", digest=kind))


def write_kept(path: Path, codec: Codec, latents: np.ndarray) -> Path:
    config = SampleConfig(num_images=len(latents))
    made: dict[str, Any] = {"sample": config.model_dump(mode="json"), "latents": "float32"}
    made["codec"] = codec.record.model_dump(include={"kind", "digest", "settings"})
    folder = SampleFolder(path)
    folder.open(made, origin={}, num_images=len(latents), force=False)
    folder.write_plan(lambda: [Plan(config).text(len(latents))])
    pixels = np.zeros((32, 32, 3), np.uint8)
    folder.write(dict.fromkeys(range(len(latents)), pixels), dict(enumerate(latents)))
    return path


@pytest.fixture
def latents() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 4, 8, 8), np.float32)


@pytest.mark.parametrize("kind", ["kl", "tiny", "normalised"])
def test_it_is_drawn_as_it_was(tmp_path: Path, latents: np.ndarray, kind: str) -> None:
    codec, images = codec_of(kind), find_images(write_kept(tmp_path / "own", codec_of(kind), latents))
    kept, said = find_kept(images, codec, tiny_dit(in_channels=4), flip=False)
    assert kept is not None
    assert "3 latents kept" in said
    rows = np.stack([pickle.loads(pickle.dumps(kept)).read(index, mirrored=False) for index in range(3)])
    assert rows.shape == (3, 8 if codec.has_posterior else 4, 8, 8)
    drawn = codec.draw(torch.from_numpy(rows), noise=torch.randn(3, 4, 8, 8))  # of which nothing is left
    assert np.allclose(drawn.numpy(), latents, atol=1e-5)
    assert len(pickle.dumps(kept)) < 20_000  # without the VAE


def test_when_they_cannot_be_used(tmp_path: Path, latents: np.ndarray) -> None:
    codec = codec_of("kl")
    images = find_images(write_kept(tmp_path / "own", codec, latents))
    backbone = tiny_dit(in_channels=4)
    assert find_kept(images, codec, backbone, flip=False)[0] is not None
    for other, network, flip, reason in (
        (codec_of("tiny"), backbone, False, "another codec"),
        (PixelCodec(3), backbone, False, "another codec"),
        (codec, tiny_dit(in_channels=4, input_size=16), False, "another size"),
        (codec, backbone, True, "mirror images have none"),
    ):
        kept, said = find_kept(images, other, network, flip=flip)
        assert kept is None
        assert reason in said
    settings = codec.record.model_copy(update={"settings": {"scaling_factor": 9}})
    images.latent_codec = codec.record.model_copy(update={"settings": {}})
    codec.record = settings  # the same weights, with another scale
    assert find_kept(images, codec, backbone, flip=False)[0] is None
    plain = find_images(write_kept(tmp_path / "plain", codec, latents), rules=2)
    assert find_kept(plain, codec, backbone, flip=False) == (None, "")


@pytest.mark.parametrize("damage", ["cut", "objects", "huge", "nan", "shape"])
def test_damaged_latents_are_named(tmp_path: Path, latents: np.ndarray, damage: str) -> None:
    codec = codec_of("kl")
    images = find_images(write_kept(tmp_path / "own", codec, latents))
    file = tmp_path / "own" / "000001.latent.npy"
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[:-4])
    elif damage == "huge":
        file.write_bytes(whole.replace(b"(4, 8, 8)", b"(4,88,88)"))
    elif damage == "objects":
        np.save(file, np.array([{"a": 1}]), allow_pickle=True)
    else:
        np.save(file, np.full((4, 8, 8), np.nan, np.float32) if damage == "nan" else latents[0, :, :4])
    kept = KeptLatents(images, codec, shape=(4, 8, 8))
    with pytest.raises(DataError, match="000001"):
        kept.read(1, mirrored=False)
