"""The latent store: what it holds is what the codec gives, made once, whatever is killed, damaged or changed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmp_cli.backbones.base import Backbone
from dmp_cli.config import CodecRecord
from dmp_cli.data.batches import Damaged, LiveReader, as_floats
from dmp_cli.data.folder import find_images
from dmp_cli.errors import ConfigError, DataError, DMPError, StoppedError
from dmp_cli.latents import fill as encoding
from dmp_cli.latents.codec import Codec, PixelCodec, VAECodec
from dmp_cli.latents.fill import default_store_folder, describe_store, encode_missing, outdated_stores, pays_off
from dmp_cli.latents.store import LatentStore, rows_per_file
from dmp_cli.runtime import randomness
from dmp_cli.storage import atomic as files
from tests.backbones.pipelines import tiny_vae
from tests.builders import tiny_dit, write_images

CPU = torch.device("cpu")
COUNT = 11


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmp_cli.latents.store._FILE_BYTES", 4 * 2 * 8 * 8 * 8 * 4)  # four images of the tiny VAE
    monkeypatch.setattr(encoding, "_CHUNK", 2)


def latent_dit() -> Backbone:
    return tiny_dit(in_channels=4)


def vae_codec(*, digest: str = "one", seed: int = 0) -> VAECodec:
    return VAECodec(tiny_vae(seed=seed).eval(), CodecRecord(kind="vae", source="here", digest=digest))


def store_of(data: Path, folder: Path, *, codec: Codec | None = None, flip: bool = True) -> LatentStore:
    backbone = latent_dit() if codec is None or codec.record.kind != "pixel" else tiny_dit(input_size=16)
    store = LatentStore(folder, describe_store(find_images(data), codec or vae_codec(), backbone, flip=flip))
    store.claim()
    return store


def make(store: LatentStore, data: Path, *, codec: Codec | None = None, **how: Any) -> list[int]:
    options: dict[str, Any] = {"max_bad": 0, "device": CPU, **how}
    return list(encode_missing(store, images=find_images(data), codec=codec or vae_codec(), **options))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", count=COUNT, size=16)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}


def test_it_holds_what_the_codec_gives_for_each_image_and_its_mirror_image(data: Path, tmp_path: Path) -> None:
    store, codec = store_of(data, tmp_path / "store"), vae_codec()
    done = make(store, data, codec=codec)
    assert done == [2, 4, 6, 8, 10, 11]
    assert set(contents(store.path)) == {"manifest.json", *(f"0000{k}.safetensors" for k in range(3))}
    reader = LiveReader(find_images(data), image_size=16, channels=3)
    for index in range(COUNT):
        for mirrored in (False, True):
            pixels = torch.from_numpy(reader.read(index, mirrored=mirrored))[None]
            with torch.no_grad():
                posterior = codec.vae.encode(as_floats(pixels)).latent_dist
            expected = torch.cat([posterior.mean, posterior.std], dim=1)[0]
            found = torch.from_numpy(store.read(index, mirrored=mirrored))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_draws_from_it_are_draws_from_the_posterior(data: Path, tmp_path: Path) -> None:
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
    mean, std = posterior.mean[0] * codec.scale, posterior.std[0] * codec.scale
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


def test_without_flip_it_is_half_as_large(data: Path, tmp_path: Path) -> None:
    store = store_of(data, tmp_path / "store", flip=False)
    make(store, data)
    assert store.record.shape == (1, 8, 8, 8)
    assert store.record.num_files == 2


def test_a_complete_store_is_not_made_again(data: Path, tmp_path: Path) -> None:
    make(store_of(data, tmp_path / "store"), data)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    again = store_of(data, tmp_path / "store")
    assert again.missing() == []
    assert make(again, data) == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == before


def test_an_interruption_keeps_what_is_finished(data: Path, tmp_path: Path) -> None:
    calls = Counter[str]()

    def stop() -> None:
        calls["stop"] += 1
        if calls["stop"] > 5:
            raise StoppedError("enough", signal_number=15)

    store = store_of(data, tmp_path / "store")
    with pytest.raises(StoppedError):
        make(store, data, stop=stop)
    assert store_of(data, tmp_path / "store").missing() == [1, 2]
    assert make(store_of(data, tmp_path / "store"), data) == [6, 8, 10, 11]
    make(store_of(data, tmp_path / "other"), data)
    assert contents(tmp_path / "store") == contents(tmp_path / "other")


class SlowCodec(VAECodec):
    """Takes its time, and notes who encoded what."""

    def __init__(self, notes: Path) -> None:
        super().__init__(tiny_vae().eval(), CodecRecord(kind="vae", source="here", digest="one"))
        self.notes = notes

    def measure(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        with open(self.notes, "a") as file:
            file.write(f"{os.getpid()}\n")
        return super().measure(images)


def build(data: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    codec = SlowCodec(folder.parent / "notes")
    store = store_of(data, folder, codec=codec)
    make(store, data, codec=codec)
    os._exit(0)


@pytest.mark.slow
def test_two_processes_make_it_and_one_is_killed(data: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    pair = [context.Process(target=build, args=(data, tmp_path / "store")) for _ in range(2)]
    for process in pair:
        process.start()
    notes = tmp_path / "notes"
    while not notes.exists() or len(set(notes.read_text().split())) < 2:
        time.sleep(0.005)
    time.sleep(0.03)
    pair[0].kill()
    for process in pair:
        process.join()
    assert (pair[0].exitcode, pair[1].exitcode) == (-9, 0)
    calls = Counter(notes.read_text().split())
    # six chunks, two views of each; what the killed one had begun, two chunks at most, is made again
    assert 12 <= calls.total() <= 16
    make(store_of(data, tmp_path / "other"), data)
    assert contents(tmp_path / "store") == contents(tmp_path / "other")


def test_every_flipped_bit_is_noticed_and_mended(data: Path, tmp_path: Path) -> None:
    make(store_of(data, tmp_path / "whole"), data)
    whole = contents(tmp_path / "whole")
    name, original = "00001.safetensors", whole["00001.safetensors"]
    for place in sorted({*range(0, 700, 7), *range(700, len(original), 1409), len(original) - 1}):
        store = store_of(data, tmp_path / "whole")
        store.file(1).write_bytes(original[:place] + bytes([original[place] ^ 4]) + original[place + 1 :])
        before = store.file(1).read_bytes()
        try:
            values = [store.read(index, mirrored=mirrored) for index in range(4, 8) for mirrored in (False, True)]
        except Damaged:
            continue
        finally:
            store.file(1).write_bytes(original)
        healthy = store_of(data, tmp_path / "whole")
        expected = [healthy.read(index, mirrored=mirrored) for index in range(4, 8) for mirrored in (False, True)]
        assert all(np.array_equal(one, other) for one, other in zip(values, expected, strict=True)), (place, before)
    damaged = store_of(data, tmp_path / "whole")
    damaged.file(1).write_bytes(original[:-100] + bytes([original[-100] ^ 1]) + original[-99:])
    with pytest.raises(Damaged, match=f"{name} is damaged: image 7 in it"):
        [damaged.read(index, mirrored=True) for index in range(4, 8)]
    assert store_of(data, tmp_path / "whole").missing() == [1]
    make(store_of(data, tmp_path / "whole"), data)
    assert contents(tmp_path / "whole") == whole


@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_file_cut_short_is_made_again(data: Path, tmp_path: Path, left: int) -> None:
    store = store_of(data, tmp_path / "store")
    make(store, data)
    whole = contents(store.path)
    store.file(2).write_bytes(whole["00002.safetensors"][:left])
    again = store_of(data, tmp_path / "store")
    make(again, data)
    assert contents(store.path) == whole


def test_a_file_of_another_place_or_store_is_made_again(data: Path, tmp_path: Path) -> None:
    make(store_of(data, tmp_path / "store"), data)
    other = write_images(tmp_path / "other" / "photos", count=COUNT, size=16, seed=1)
    (other / "0" / "0000.png").write_bytes((other / "0" / "0000.png").read_bytes() + b"\0")  # another size
    make(store_of(other, tmp_path / "foreign"), other)
    whole = contents(tmp_path / "store")
    shutil.copy(tmp_path / "store" / "00000.safetensors", tmp_path / "store" / "00001.safetensors")
    shutil.copy(tmp_path / "foreign" / "00000.safetensors", tmp_path / "store" / "00000.safetensors")
    store = store_of(data, tmp_path / "store")
    assert store.missing() == [0, 1]
    make(store, data)
    assert contents(tmp_path / "store") == whole


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
    with pytest.raises(ConfigError, match=r"manifest.json cannot be read"):
        store_of(data, tmp_path / "store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="mine holds other files"):
        store_of(data, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_changed_data_leave_an_outdated_store(data: Path) -> None:
    def record(codec: Codec) -> Any:
        return describe_store(find_images(data), codec, latent_dit(), flip=True)

    for codec in (vae_codec(), vae_codec(digest="two")):
        LatentStore(default_store_folder(record(codec)), record(codec)).claim()
    before = default_store_folder(record(vae_codec()))
    assert outdated_stores(record(vae_codec())) == []
    write_images(data, count=COUNT + 1, size=16)
    assert default_store_folder(record(vae_codec())) != before
    assert outdated_stores(record(vae_codec())) == [before]


def test_unreadable_images_are_told_and_tried_again(data: Path, tmp_path: Path) -> None:
    broken = data / "1" / "0001.png"  # image 3: three of class 0 come first
    original = broken.read_bytes()
    broken.write_bytes(b"x" * len(original))
    store = store_of(data, tmp_path / "store")
    make(store, data, max_bad=1)
    assert list(store.problems()) == [3]
    with pytest.raises(DataError, match=r"cannot read .*0001.png: not an image"):
        store.read(3, mirrored=False)
    store.read(4, mirrored=False)
    with pytest.raises(DataError, match=r"1 images in .* cannot be read and at most 0 may be bad"):
        make(store_of(data, tmp_path / "store"), data)
    broken.write_bytes(original)  # it was the disk, not the file
    again = store_of(data, tmp_path / "store")
    assert make(again, data) == [9, 11]  # the one file of four images that it is in; seven are there
    make(store_of(data, tmp_path / "other"), data)
    assert contents(tmp_path / "store") == contents(tmp_path / "other")


def test_no_room(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(data, tmp_path / "store")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DMPError, match=r"needs 0.00 GB more, and the disk has 0.00 GB") as caught:
        make(store, data)
    assert "--no-latent-store" in str(caught.value)
    monkeypatch.undo()
    written = files.write_bytes

    def full(path: Path, data: bytes) -> None:
        if path.name == "00001.safetensors":
            raise DMPError(f"cannot write {path}: no space left on the disk")
        written(path, data)

    monkeypatch.setattr("dmp_cli.latents.store.write_bytes", full)
    monkeypatch.setattr("dmp_cli.latents.store._FILE_BYTES", 4 * 2 * 8 * 8 * 8 * 4)
    with pytest.raises(DMPError, match="no space left"):
        make(store, data)
    monkeypatch.undo()
    monkeypatch.setattr("dmp_cli.latents.store._FILE_BYTES", 4 * 2 * 8 * 8 * 8 * 4)
    assert store_of(data, tmp_path / "store").missing() == [1, 2]


def test_where_it_saves_work(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = find_images(data)
    assert pays_off(images, vae_codec(), latent_dit())
    assert not pays_off(images, PixelCodec(3), tiny_dit(input_size=16))
    monkeypatch.setattr("dmp_cli.data.batches.KEPT_BYTES", COUNT * 3 * 16 * 16 - 1)
    assert pays_off(images, PixelCodec(3), tiny_dit(input_size=16))


@pytest.mark.parametrize(("count", "rows"), [(1, 16), (100, 16), (1000, 32), (70_000, 1024), (10**6, 1024)])
def test_there_are_files_for_many_processes_to_make(count: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmp_cli.latents.store._FILE_BYTES", 64 << 20)
    assert rows_per_file((2, 8, 32, 32), "float32", count=count) == rows  # Stable Diffusion's VAE at 256 px
