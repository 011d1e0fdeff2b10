"""A latent store holds what the codec gives, and is refused to another codec, shape or data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dmp_cli.data.batches import as_floats
from dmp_cli.data.folder import find_images
from dmp_cli.data.readers import LiveReader
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.latents.store import rows_per_file
from dmp_cli.runtime import randomness
from tests.builders import write_images

from .stores import COUNT, contents, make, store_of, vae_codec


def test_a_store_holds_what_the_codec_gives_for_each_image_and_its_mirror_image(data: Path, tmp_path: Path) -> None:
    store, codec = store_of(data, tmp_path / "store"), vae_codec()
    done = make(store, data, codec=codec)
    assert done == [2, 4, 6, 8, 10, 11]
    names = [f"0000{k}{sources}.safetensors" for k in range(3) for sources in ("", ".sources")]
    assert set(contents(store.path)) == {"manifest.json", *names}
    reader = LiveReader(find_images(data), image_size=16, channels=3)
    for index in range(COUNT):
        for mirrored in (False, True):
            pixels = torch.from_numpy(reader.read(index, mirrored=mirrored))[None]
            with torch.no_grad():
                posterior = codec.vae.encode(as_floats(pixels)).latent_dist
            expected = torch.cat([posterior.mean, posterior.std], dim=1)[0]
            found = torch.from_numpy(store.read(index, mirrored=mirrored))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_draws_from_a_store_are_draws_from_the_posterior(data: Path, tmp_path: Path) -> None:
    store, codec = store_of(data, tmp_path / "store"), vae_codec()
    make(store, data, codec=codec)
    pixels = LiveReader(find_images(data), image_size=16, channels=3).read(3, mirrored=False)
    images = as_floats(torch.from_numpy(pixels))[None]
    measured = torch.from_numpy(store.read(3, mirrored=False))[None]
    drawn = []
    for step in range(400):
        noise = randomness.normal("posterior", (4, 8, 8), seed=0, step=step, indices=[0])
        drawn.append(codec.draw(measured, noise=noise))
        if step < 3:
            torch.testing.assert_close(drawn[-1], codec.encode(images, noise=noise), rtol=1e-4, atol=1e-5)
    found = torch.cat(drawn)
    with torch.no_grad():
        posterior = codec.vae.encode(images).latent_dist
    mean, std = posterior.mean[0] * codec.scaling.scale, posterior.std[0] * codec.scaling.scale
    assert ((found.mean(0) - mean).abs() < 5 * std / 400**0.5).all()
    assert ((found.std(0) / std - 1).abs() < 0.2).all()


def test_pixels_are_kept_as_they_are(data: Path, tmp_path: Path) -> None:
    store = store_of(data, tmp_path / "store", codec=PixelCodec(3))
    make(store, data, codec=PixelCodec(3))
    assert store.record.shape == (1, 3, 16, 16)
    live = LiveReader(find_images(data), image_size=16, channels=3)
    for index in range(COUNT):
        for mirrored in (False, True):
            assert np.array_equal(store.read(index, mirrored=mirrored), live.read(index, mirrored=mirrored))
            assert store.read(index, mirrored=mirrored).dtype == np.uint8


def test_without_flip_a_store_is_half_as_large(data: Path, tmp_path: Path) -> None:
    store = store_of(data, tmp_path / "store", flip=False)
    make(store, data)
    assert store.record.shape == (1, 8, 8, 8)
    assert store.record.num_files == 2


def test_another_vae_size_flip_or_data_are_another_store(data: Path, tmp_path: Path) -> None:
    store_of(data, tmp_path / "store")
    with pytest.raises(ConfigError, match="a latent store of something else: another codec") as caught:
        store_of(data, tmp_path / "store", codec=vae_codec(digest="two"))
    assert "--store-dir" in str(caught.value)
    with pytest.raises(ConfigError, match=r"codec vae, not pixel; another codec; .*dtype float32, not uint8"):
        store_of(data, tmp_path / "store", codec=PixelCodec(3))
    with pytest.raises(ConfigError, match=r"shape \(2, 8, 8, 8\), not \(1, 8, 8, 8\)"):
        store_of(data, tmp_path / "store", flip=False)
    write_images(data, count=COUNT + 1, size=16)
    with pytest.raises(ConfigError, match="the data have changed; count 11, not 12"):
        store_of(data, tmp_path / "store")
    (tmp_path / "store" / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match=r"manifest.json is not valid JSON"):
        store_of(data, tmp_path / "store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="mine holds other files"):
        store_of(data, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(("count", "rows"), [(1, 8), (100, 8), (10_000, 40), (70_000, 280), (10**6, 1024)])
def test_a_store_has_files_for_many_processes_to_make(count: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmp_cli.latents.store._FILE_BYTES", 64 << 20)
    assert rows_per_file((2, 8, 32, 32), "float32", count=count) == rows  # Stable Diffusion's VAE at 256 px
