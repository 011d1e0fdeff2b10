"""dmp_cli.data.zips: no member gives more than it declares, and none that declares too much is read."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from dmp_cli.data import zips
from dmp_cli.data.batches import read_batches
from dmp_cli.data.bounds import BOUNDS, Bounds
from dmp_cli.data.folder import find_images
from dmp_cli.data.readers import LiveReader
from dmp_cli.data.zips import open_zip, read_member
from dmp_cli.errors import DataError
from tests.traced import peak

from .shard_files import png

KINDS = {"stored": 0, "deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
HUGE = 60_000_000  # bytes of zeros, which are few in the zip


def write_zip(path: Path, members: dict[str, bytes], kind: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def declare(path: Path, size: int) -> None:
    """Let the list of members say that the first one has ``size`` bytes."""
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 24 :][:4] = b""
    place = data.index(b"PK\1\2") + 24
    data[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_read_as_zipfile_reads_them(kind: str, tmp_path: Path) -> None:
    members = {"a.png": png(0), "b.txt": b"", "c.txt": b"a" * 100_000}
    path = write_zip(tmp_path / "a.zip", members, KINDS[kind])
    with open_zip(path) as archive:
        assert {name: read_member(archive, name, bounds=BOUNDS) for name in members} == members


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_member_is_named(kind: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": png(0), "b.png": png(1)}, KINDS[kind])
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    images = find_images(path)
    with pytest.raises(DataError, match=r"cannot read .*a\.zip/a\.png"):
        images.read(0)
    assert images.read(1) == png(1)


@pytest.mark.parametrize("kind", ["deflate", "bzip2", "lzma"])
@pytest.mark.parametrize("lie", [1000, 0, HUGE + 1])
def test_a_member_of_another_size_than_it_declares(kind: str, lie: int, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(HUGE), "b.png": png(0)}, KINDS[kind])
    declare(path, lie)
    images = find_images(path)

    def read() -> None:
        with pytest.raises(DataError, match=r"cannot read .*a\.zip/a\.png"):
            images.read(0)

    assert peak(read) < 3 * lie + 10_000_000  # LZMA looks back over 8 MB


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_declares_too_much(kind: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(2_000_001), "b.png": png(0)}, KINDS[kind])
    images = find_images(path, bounds=Bounds(max_file_size=2))
    with pytest.raises(DataError, match="it has 2 MB, and --max-file-size is 2 MB"):
        images.read(0)
    assert images.read(1) == png(0)
    assert len(find_images(path).read(0)) == 2_000_001


def test_a_bomb_counts_as_an_unreadable_image(tmp_path: Path) -> None:
    images = find_images(write_zip(tmp_path / "a.zip", {"a.png": bytes(10), "b.png": png(0)}))
    declare(images.path, 4_000_000_000)
    images = find_images(images.path)
    reader = LiveReader(images, image_size=8, channels=3)
    how = {"batch_size": 2, "seed": 0, "start_step": 0, "stop_step": 1, "flip": False, "workers": 0}
    (batch,) = read_batches(images, reader, max_bad=1, **how)
    assert batch.indices.tolist() == [1, 1]
    assert "4,000 MB, and --max-file-size is 512 MB" in batch.bad[0]


def test_an_encrypted_member_is_said_to_be_one(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": png(0), "b.png": png(1)})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="it is encrypted"):
        find_images(path).read(0)


def test_too_many_members_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{number}.png": b"" for number in range(100)})
    assert len(find_images(path)) == 100
    monkeypatch.setattr(zips, "_DIRECTORY", 5000)
    with pytest.raises(DataError, match=r"cannot read .*a\.zip: it lists its members in .* too many"):
        find_images(path)
    monkeypatch.undo()
    monkeypatch.setattr(zips, "physical_memory", lambda: 100_000)
    with pytest.raises(DataError, match="too many for one zip"):
        find_images(path)


def test_lzma_that_looks_back_too_far(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": png(0), "b.png": png(1)}, zipfile.ZIP_LZMA)
    data = bytearray(path.read_bytes())
    place = data.index(b"a.png") + 5 + 4  # behind the member's name, version and size of the properties
    data[place + 1 : place + 5] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(DataError, match="looks back"):
        find_images(path).read(0)


def test_class_folders_whose_number_python_does_not_make(tmp_path: Path) -> None:
    names = ["9" * 5000, "10", "9"]
    images = find_images(write_zip(tmp_path / "a.zip", {f"{name}/a.png": png(0) for name in names}))
    assert images.classes == ["9", "10", "9" * 5000]
