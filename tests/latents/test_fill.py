"""Filling a latent store: where it pays off, and each file made once, whatever is interrupted, unreadable or full."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.config import CodecRecord
from dmp_cli.data.folder import find_images
from dmp_cli.errors import ConfigError, DataError, DMPError, StoppedError
from dmp_cli.latents.codec import Codec, PixelCodec, VAECodec
from dmp_cli.latents.fill import default_store_folder, describe_store, outdated_stores, pays_off, place_store
from dmp_cli.latents.store import LatentStore
from dmp_cli.storage import atomic as files
from tests.backbones.pipelines import tiny_vae
from tests.builders import tiny_dit, write_images

from .stores import COUNT, contents, latent_dit, make, store_of, vae_codec


def test_a_store_pays_off_where_it_saves_work(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = find_images(data)
    assert pays_off(images, vae_codec(), latent_dit())
    assert not pays_off(images, PixelCodec(3), tiny_dit(input_size=16))
    monkeypatch.setattr("dmp_cli.data.readers.KEPT_BYTES", COUNT * 3 * 16 * 16 - 1)
    assert pays_off(images, PixelCodec(3), tiny_dit(input_size=16))


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
def test_two_processes_fill_a_store_and_one_is_killed(data: Path, tmp_path: Path) -> None:
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


def test_unreadable_images_are_reported_and_tried_again(data: Path, tmp_path: Path) -> None:
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


def test_a_full_disk_is_reported(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_store_of_an_earlier_version_keeps_its_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmp_cli.latents.store._FILE_BYTES", 64 << 20)
    record = describe_store(find_images(data), vae_codec(), latent_dit(), flip=True)
    assert record.rows == 8
    earlier = record.model_copy(update={"rows": 16})
    for folder in (tmp_path / "store", None):
        assert place_store(record, folder).record.rows == 8
        LatentStore(folder or default_store_folder(earlier), earlier).claim()
        found = place_store(record, folder)
        assert found.record == earlier
        make(found, data)
        assert [path.name for path in found.path.glob("0000?.safetensors")] == ["00000.safetensors"]
        found.check()
    other = tmp_path / "other"
    LatentStore(other, record.model_copy(update={"rows": 5})).claim()
    with pytest.raises(ConfigError, match="rows 5, not 8"):
        place_store(record, other).check()
