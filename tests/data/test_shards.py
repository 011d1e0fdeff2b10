"""dmp_cli.data.shards: webdataset shards read in place, member by member, by any number of threads."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli.data.batches import read_batches
from dmp_cli.data.folder import find_images
from dmp_cli.data.readers import LiveReader
from dmp_cli.data.shard_paths import find_shards
from dmp_cli.data.shards import ShardImages
from dmp_cli.errors import DataError

from .shard_files import png, write_shards, write_tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LONG = "a-very-long-folder-name" * 6


@pytest.mark.parametrize("format", FORMATS)
def test_members_of_a_key_are_a_sample(tmp_path: Path, format: int) -> None:
    source = find_images(write_shards(tmp_path / "data", [3, 2], format=format))
    assert isinstance(source, ShardImages)
    assert len(source) == 5
    assert source.labels.tolist() == [0, 1, 2, 3, 0]
    assert source.classes == ["0", "1", "2", "3"]
    assert source.has_captions
    assert source.spans is not None
    assert source.spans.tolist() == [0, 3, 5]
    for copy in (source, pickle.loads(pickle.dumps(source))):
        assert [copy.read(index) for index in (4, 0, 3)] == [png(4), png(0), png(3)]
        assert copy.caption(3) == "caption 3"
        assert copy.name(3) == f"{tmp_path}/data/train-001.tar/000003.png"


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_kind(tmp_path: Path, format: int) -> None:
    members = {
        f"./{LONG}/000.jpg": b"first",
        f"./{LONG}/000.json": json.dumps({"text": "läng", "width": 3}).encode(),
        "x/é.b/1.PNG": b"second",
        "x/é.b/1.seg.png": b"a mask",
        "x/é.b/1.txt": "schön".encode(),
        "x/é.b/.hidden": b"",
        "../../etc/2.jpg": b"third",
        "alone.txt": b"no image",
    }
    source = find_images(write_tar(tmp_path / "s.tar", members, format=format))
    assert [source.read(index) for index in range(3)] == [b"first", b"second", b"third"]
    assert [source.caption(0), source.caption(1)] == ["läng", "schön"]
    assert source.classes == []
    assert not source.has_captions
    assert source.missing_captions() == [f"{tmp_path}/s.tar/../../etc/2.jpg"]
    with pytest.raises(DataError, match="has no caption"):
        source.caption(2)


@pytest.mark.parametrize("change", ["caption", "class", "name", "image"])
def test_the_fingerprint_follows_names_sizes_and_classes(tmp_path: Path, change: str) -> None:
    members = {"a.png": b"1", "a.txt": b"one", "a.cls": b"1"}
    before = find_images(write_tar(tmp_path / "s.tar", members)).fingerprint
    changed = {
        "caption": {**members, "a.txt": b"another"},
        "class": {**members, "a.cls": b"2"},
        "name": {name.replace("a.", "b."): data for name, data in members.items()},
        "image": {**members, "a.png": b"12"},
    }[change]
    assert find_images(write_tar(tmp_path / "s.tar", changed)).fingerprint != before


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.txt": b"x"}, "no images in"),
        ({"a.png": b"x", "a.jpg": b"x"}, "two images of one key: a.png and a.jpg"),
        ({"a.png": b"x", "b.png": b"x", "b.cls": b"1"}, "a.png has no .cls beside it, but other images have"),
        ({"a.png": b"x", "a.cls": b"cat"}, "s.tar/a.cls is b'cat', not the number of a class"),
        ({"a.png": b"x", "a.cls": b"-1"}, "not the number of a class"),
    ],
)
def test_unclear_samples_are_refused(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        find_images(write_tar(tmp_path / "s.tar", members))


def test_damaged_and_absent_shards(tmp_path: Path) -> None:
    packed = write_tar(tmp_path / "z" / "s.tar", {"a.png": b"x" * 600}, mode="w:gz")
    with pytest.raises(DataError, match=r"cannot read .*s.tar") as caught:
        find_images(packed)
    assert "not compressed" in str(caught.value)
    whole = write_shards(tmp_path / "data", [2]) / "train-000.tar"
    data = whole.read_bytes()
    whole.write_bytes(data[:1000])
    with pytest.raises(DataError, match=r"cannot read .*train-000.tar"):
        find_images(whole)
    whole.write_bytes(data)
    source = find_images(whole)
    whole.write_bytes(data[:2000])
    with pytest.raises(DataError, match=r"cannot read .*000001.png: the shard is shorter than when it was listed"):
        source.read(1)
    with pytest.raises(DataError, match=r"there is no .*train-001.tar, and 1 more are missing"):
        find_images(whole.parent / "train-{000..002}.tar")
    with pytest.raises(DataError, match=r"there is no .*none-\*.tar"):
        find_images(whole.parent / "none-*.tar")
    with pytest.raises(DataError, match="is not on this machine"):
        find_images("pipe:cat train-{000..009}.tar")


def test_captions_that_cannot_be_read(tmp_path: Path) -> None:
    members = {"a.png": b"x", "a.txt": b"K\xe4se", "b.png": b"x", "b.json": b'["text"]', "c.png": b"x", "c.json": b"{"}
    source = find_images(write_tar(tmp_path / "s.tar", members))
    for index in range(3):
        with pytest.raises(DataError, match=f"the caption of .*{'abc'[index]}.png"):
            source.caption(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_members(tmp_path: Path, workers: int) -> None:
    source = find_images(write_shards(tmp_path / "data", [4, 3]))
    reader = LiveReader(source, image_size=8, channels=3)
    how: dict[str, Any] = {"batch_size": 3, "seed": 0, "flip": False, "workers": workers, "max_bad": 0}
    found = list(read_batches(source, reader, start_step=0, stop_step=7, captions=True, **how))
    for batch in found:
        for k, index in enumerate(batch.indices.tolist()):
            expected = np.asarray(Image.open(io.BytesIO(png(index)))).transpose(2, 0, 1)
            assert np.array_equal(batch.values[k].numpy(), expected)
            assert batch.captions is not None
            assert batch.captions[k] == f"caption {index}"
            assert batch.labels[k] == index % 4
    (last,) = read_batches(source, reader, start_step=6, stop_step=7, captions=True, **how)
    assert torch.equal(last.indices, found[-1].indices)


def shards_in(folder: Path) -> ShardImages:
    return ShardImages(folder, find_shards(folder))


def test_many_threads_read_their_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file that one thread closes must not be another under the same number by the time that a second one reads it.
    monkeypatch.setattr("dmp_cli.data.shards._OPEN", 2)
    write_shards(tmp_path, [3, 3, 2])
    expected = [shards_in(tmp_path).read(index) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(300):
            images = shards_in(tmp_path)
            assert list(pool.map(images.read, [*range(8)] * 2)) == expected * 2


def test_a_shard_stays_open_for_who_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmp_cli.data.shards._OPEN", 1)
    write_shards(tmp_path, [3, 3, 2])
    images = shards_in(tmp_path)
    held = images._open(0)
    other = images._open(1)
    assert os.fstat(held.number).st_ino == (tmp_path / "train-000.tar").stat().st_ino
    assert os.fstat(other.number).st_ino == (tmp_path / "train-001.tar").stat().st_ino
    number = held.number
    del held
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert pickle.loads(pickle.dumps(images)).read(0) == images.read(0)
