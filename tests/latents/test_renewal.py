"""A latent store follows the content of its images, not their sizes; stores of before keep what they said."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli.data.folder import find_images
from dmp_cli.errors import DMPError
from dmp_cli.latents import encoding
from dmp_cli.latents.store import LatentStore

from .stores import COUNT, contents, make, store_of

CHANGED = (2, 9)


def save(path: Path, seed: int) -> None:
    """A BMP, which has the same size whatever it shows."""
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def bmps(tmp_path: Path) -> Path:
    folder = tmp_path / "bmps"
    folder.mkdir()
    for number in range(COUNT):
        save(folder / f"{number:02d}.bmp", number)
    return folder


def replace(folder: Path) -> None:
    """Other pictures of the same names and sizes, with the times of the old ones, as cp -p and rsync -t write them."""
    for number in CHANGED:
        path = folder / f"{number:02d}.bmp"
        time = path.stat().st_mtime_ns
        save(path, 100 + number)
        os.utime(path, ns=(time, time + 1_000))


def rows(store: LatentStore) -> list[np.ndarray]:
    return [store.read(index, mirrored=mirrored) for index in range(COUNT) for mirrored in (False, True)]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_replaced_pictures_are_encoded_again_and_no_others(
    bmps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def packed() -> Path:
        if kind == "folder":
            return bmps
        with zipfile.ZipFile(tmp_path / "bmps.zip", "w") as archive:
            for path in sorted(bmps.iterdir()):
                archive.write(path, path.name)
        return tmp_path / "bmps.zip"

    store = store_of(packed(), tmp_path / "store")
    make(store, packed())
    before, files = rows(store), contents(store.path)
    replace(bmps)
    store = store_of(packed(), tmp_path / "store")  # the fingerprint is over names and sizes: the same store
    assert store.missing() == []
    measured: list[int] = []
    original = encoding._measure
    monkeypatch.setattr(
        encoding, "_measure", lambda pixels, *how: measured.append(len(pixels)) or original(pixels, *how)
    )
    said: list[str] = []
    make(store, packed(), warn=said.append)
    assert said == [f"2 images have changed since {store.path} was made, and are encoded again"]
    assert sum(measured) < COUNT  # the chunks that hold them, not all
    fresh = store_of(packed(), tmp_path / "fresh")
    make(fresh, packed())
    for place, (old, new, right) in enumerate(zip(before, rows(store), rows(fresh), strict=True)):
        assert np.array_equal(new, right)
        assert np.array_equal(new, old) == (place // 2 not in CHANGED)
    now = contents(store.path)
    assert now == contents(fresh.path) or kind == "folder"  # of a folder, the times of the files are kept too
    assert {name for name in files if files[name] != now[name]} >= {"00000.safetensors", "00002.safetensors"}
    assert now["00001.safetensors"] == files["00001.safetensors"]


def test_pictures_that_were_only_copied_are_read_once(
    bmps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(bmps, tmp_path / "store")
    make(store, bmps)
    before = contents(store.path)
    copy = shutil.copytree(bmps, tmp_path / "copy" / "bmps", copy_function=shutil.copyfile)
    monkeypatch.setattr(encoding, "_measure", None)  # nothing is encoded
    make(store_of(copy, store.path), copy)
    after = contents(store.path)
    assert {name for name in before if before[name] != after[name]} == {name for name in before if "sources" in name}
    source = find_images(copy)
    source.read = None  # type: ignore[method-assign,assignment]  # nor is anything read
    monkeypatch.setattr("tests.latents.stores.find_images", lambda path: source)
    make(store_of(copy, store.path), copy)
    assert contents(store.path) == after


def test_a_store_of_before_is_taken_for_what_it_says(bmps: Path, tmp_path: Path) -> None:
    store = store_of(bmps, tmp_path / "store")
    make(store, bmps)
    for path in store.path.glob("*.sources.safetensors"):
        path.unlink()
    before = contents(store.path)
    replace(bmps)
    make(store_of(bmps, store.path), bmps)
    assert contents(store.path) == before


def test_sources_that_are_damaged_say_nothing(bmps: Path, tmp_path: Path) -> None:
    store = store_of(bmps, tmp_path / "store")
    make(store, bmps)
    before = contents(store.path)
    (store.path / "00001.sources.safetensors").write_bytes(b"damaged")
    make(store_of(bmps, store.path), bmps)
    assert contents(store.path) == before


def test_a_picture_that_can_no_longer_be_read_is_a_bad_one(bmps: Path, tmp_path: Path) -> None:
    store = store_of(bmps, tmp_path / "store")
    make(store, bmps)
    broken = bmps / "03.bmp"
    size, good = broken.stat().st_size, broken.read_bytes()
    broken.write_bytes(b"x" * size)
    os.utime(broken, ns=(0, 0))
    again = store_of(bmps, store.path)
    make(again, bmps, max_bad=1)
    assert list(again.problems()) == [3]
    broken.write_bytes(good)
    make(again, bmps)
    assert again.problems() == {}


def test_a_store_that_cannot_be_written(bmps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(bmps, tmp_path / "store")
    make(store, bmps)
    before = contents(store.path)

    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("dmp_cli.latents.renewal.make_folder", refuse)
    copy = shutil.copytree(bmps, tmp_path / "copy" / "bmps", copy_function=shutil.copyfile)
    make(store_of(copy, store.path), copy)  # other times, and the same content
    replace(copy)
    with pytest.raises(DMPError, match=r"copy/bmps/02.bmp has changed since .*store was made, which cannot be written"):
        make(store_of(copy, store.path), copy)
    assert contents(store.path) == before


def test_damage_beside_a_changed_picture_is_not_written_down_as_right(bmps: Path, tmp_path: Path) -> None:
    store = store_of(bmps, tmp_path / "store")
    make(store, bmps)
    file = store.file(0)
    file.write_bytes(file.read_bytes()[:-9] + b"\0\1\2\3\4\5\6\7\x08")
    replace(bmps)
    make(store_of(bmps, store.path), bmps)
    fresh = store_of(bmps, tmp_path / "fresh")
    make(fresh, bmps)
    again = store_of(bmps, store.path)
    assert all(np.array_equal(one, other) for one, other in zip(rows(again), rows(fresh), strict=True))
