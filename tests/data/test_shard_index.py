"""The index of shards: it gives what listing gives, and a shard that was changed is listed again."""

from __future__ import annotations

import os
import pickle
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from dmp_cli.data import shard_index
from dmp_cli.data.folder import find_images
from dmp_cli.data.shard_files import LocalShard
from dmp_cli.data.shards import ShardImages
from dmp_cli.errors import DataError

from .shard_files import png, write_shards, write_tar

LISTED: list[Path] = []  # shards, as often as they are listed


@pytest.fixture(autouse=True)
def indexed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sets of any size have an index; the cache is in the test's folder."""
    LISTED.clear()
    members = LocalShard.members

    def counted(shard: LocalShard, rules: int):  # type: ignore[no-untyped-def]
        LISTED.append(shard.path)
        return members(shard, rules)

    monkeypatch.setattr(LocalShard, "members", counted)
    monkeypatch.setattr(shard_index, "LEAST", 0)
    monkeypatch.setattr(shard_index, "cache_folder", lambda: tmp_path / "cache")


def same(one: ShardImages, other: ShardImages) -> bool:
    count = len(one)
    assert len(other) == count
    return (
        (one.fingerprint, one.classes, one.passed_over, one.labels.tolist(), one.spans.tolist())
        == (other.fingerprint, other.classes, other.passed_over, other.labels.tolist(), other.spans.tolist())
        and [one.name(i) for i in range(count)] == [other.name(i) for i in range(count)]
        and [one.read(i) for i in range(count)] == [other.read(i) for i in range(count)]
        and [one.stamp(i) for i in range(count)] == [other.stamp(i) for i in range(count)]
        and one.captioned.tolist() == other.captioned.tolist()
    )


def find(path: Path) -> ShardImages:
    source = find_images(path)
    assert isinstance(source, ShardImages)
    return source


def plain(path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardImages:
    """The same without an index."""
    with monkeypatch.context() as patch:
        patch.setattr(shard_index, "LEAST", 1 << 60)
        return find(path)


def test_an_index_gives_what_listing_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_shards(tmp_path / "data", [3, 0, 2])
    write_tar(data / "train-003.tar", {"x/Ü.jpg": png(7), "x/Ü.json": b'{"text": "e"}', "x/Ü.cls": b"2", "n.jxl": b""})
    expected = plain(data, monkeypatch)
    assert same(find(data), expected)
    LISTED.clear()
    again = find(data)
    assert not LISTED
    assert same(again, expected)
    assert [again.caption(index) for index in (0, 5)] == ["caption 0", "e"]
    assert again.passed_over == {".jxl": 1}
    assert isinstance(again._table.images, np.memmap)
    assert same(pickle.loads(pickle.dumps(again)), expected)
    assert len(pickle.dumps(again._table)) < 500  # the file is named, not sent
    assert {path.name[:11] for path in data.iterdir() if path.suffix not in (".tar", ".lock")} == {".dmp-index-"}


def test_class_folders_are_in_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{name}/{i}.{end}": png(i) if end == "png" else b"%d" % label
               for label, name in enumerate(("cat", "dog")) for i in range(2) for end in ("png", "cls")}  # fmt: skip
    data = write_tar(tmp_path / "data" / "a.tar", members)
    assert find(data).classes == ["cat", "dog"]
    LISTED.clear()
    assert find(data).classes == ["cat", "dog"]
    assert not LISTED
    assert same(find(data), plain(data, monkeypatch))


def test_a_changed_shard_is_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_shards(tmp_path / "data", [3, 2])
    before = find(data).fingerprint
    write_tar(data / "train-001.tar", {"new.png": png(9), "new.cls": b"1", "new.txt": b"new"})
    LISTED.clear()
    found = find(data)
    assert [data / "train-001.tar"] == LISTED  # what is known of the other is kept
    assert found.fingerprint != before
    assert same(found, plain(data, monkeypatch))
    LISTED.clear()
    assert same(find(data), found)
    assert not LISTED


def test_a_shard_that_was_cut_is_refused(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", [3, 2])
    find(data)
    shard = data / "train-001.tar"
    times = shard.stat().st_mtime_ns
    shard.write_bytes(shard.read_bytes()[:2000])
    os.utime(shard, ns=(times, times))
    with pytest.raises(DataError, match=r"train-001\.tar"):
        find(data)


def test_a_shard_that_was_replaced_at_the_same_size_and_time_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"a.png": png(1), "a.txt": b"one", "a.cls": b"1"}
    data = tmp_path / "data"
    shard = write_tar(data / "s.tar", members, format=tarfile.USTAR_FORMAT)
    before, state = find(data), shard.stat()
    write_tar(shard, {"b.png": png(1), "b.txt": b"two", "b.cls": b"0"}, format=tarfile.USTAR_FORMAT)
    assert shard.stat().st_size == state.st_size
    os.utime(shard, ns=(state.st_mtime_ns, state.st_mtime_ns))
    found = find(data)
    assert found.fingerprint != before.fingerprint
    assert same(found, plain(data, monkeypatch))


def test_another_shard_is_another_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_shards(tmp_path / "data", [3, 2])
    find(data)
    write_tar(data / "train-002.tar", {"new.png": png(9), "new.cls": b"1", "new.txt": b"new"})
    assert same(find(data), plain(data, monkeypatch))
    assert len(find(data / "train-00{0..1}.tar")) == 5


@pytest.mark.parametrize("column", ["names", "ends", "images", "captions", "json", "labels", "manifest.json"])
def test_a_damaged_index_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str) -> None:
    data = write_shards(tmp_path / "data", [3, 2])
    find(data)
    (file,) = data.glob(f".dmp-index-*/{column}")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    LISTED.clear()
    assert same(find(data), plain(data, monkeypatch))
    file.write_bytes(file.read_bytes()[:-1])
    assert same(find(data), plain(data, monkeypatch))
    LISTED.clear()
    find(data)
    assert not LISTED


def test_the_cache_has_the_index_of_shards_on_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_shards(tmp_path / "data", [3, 2])
    make = shard_index.ShardIndex.make

    def refused(index: shard_index.ShardIndex, title: str):  # type: ignore[no-untyped-def]
        if index.place.parent == data:
            raise PermissionError
        return make(index, title)

    monkeypatch.setattr(shard_index.ShardIndex, "make", refused)
    expected = plain(data, monkeypatch)
    assert same(find(data), expected)
    LISTED.clear()
    assert same(find(data), expected)
    assert not LISTED
    assert not list(data.glob(".dmp-index-*"))
    shutil.move(data, tmp_path / "moved")  # the index in the cache was of the other place
    assert find(tmp_path / "moved").fingerprint == expected.fingerprint


def test_several_processes_list_each_shard_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_shards(tmp_path / "data", [1] * 12)
    expected = plain(data, monkeypatch)
    LISTED.clear()
    found: list[ShardImages] = []
    threads = [threading.Thread(target=lambda: found.append(find(data))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(same(one, expected) for one in found)
    assert sorted(LISTED) == sorted(data.glob("*.tar"))


def test_shards_without_images_are_refused_as_ever(tmp_path: Path) -> None:
    write_tar(tmp_path / "data" / "s.tar", {"a.txt": b"one"})
    with pytest.raises(DataError, match="no images in"):
        find(tmp_path / "data")
