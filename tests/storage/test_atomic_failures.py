"""A write that fails names the file and leaves the old one: a full disk, an interruption, a bad place."""

import errno
import os
import re
import resource
import stat
import subprocess
from pathlib import Path

import pytest

from dmp_cli.errors import DMPError
from dmp_cli.storage import atomic as files

from .folders import names_in, stage


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "no space left on the disk"), (errno.EIO, os.strerror(errno.EIO))]
)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, broken, number, words):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, broken, fail_with(number))
    with pytest.raises(DMPError) as caught:
        files.write_bytes(path, b"new")
    assert str(path) in caught.value.message
    assert words in caught.value.message
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_one_of_many_files_that_fails_is_named(tmp_path, monkeypatch, broken):
    real = getattr(os, broken)

    def fail(place, *args):
        if os.stat(place).st_size == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(place, *args)

    (tmp_path / "005.bin").write_bytes(b"old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(DMPError, match="no space left on the disk") as caught:
        files.write_many(tmp_path, {f"{n:03d}.bin": bytes([n]) * n for n in range(9)})
    assert f"cannot write {tmp_path / '005.bin'}: " in caught.value.message
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (b"old" if path.name == "005.bin" else bytes([int(path.stem)]) * int(path.stem))


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(files, "open", fail_with(errno.ENOSPC), raising=False)
    with pytest.raises(DMPError, match="no space left"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(tmp_path / "a.bin", b"new")
    assert names_in(tmp_path) == []


def test_a_file_size_limit(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(DMPError) as caught:
            files.write_bytes(path, bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(path) in caught.value.message
    assert os.strerror(errno.EFBIG) in caught.value.message
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.bin"]


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk):
    path = small_disk / "a.bin"
    files.write_bytes(path, bytes(20_000))
    with pytest.raises(DMPError, match="no space left on the disk") as caught:
        files.write_bytes(path, bytes(60_000))
    assert str(path) in caught.value.message
    assert path.read_bytes() == bytes(20_000)
    with pytest.raises(DMPError, match="no space left on the disk"):
        stage(small_disk / "new", small=bytes(10_000), large=bytes(60_000))
    assert names_in(small_disk) == ["a.bin"]


def test_a_disk_that_cannot_sync_folders_is_good_enough(tmp_path, monkeypatch):
    fsync = os.fsync

    def no_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)
    files.write_bytes(tmp_path / "a.bin", b"new")
    stage(tmp_path / "b", c=b"")
    assert names_in(tmp_path) == ["a.bin", "b", "b/c"]


@pytest.mark.parametrize("place", [".", "file/a.bin", "folder"])
def test_places_that_cannot_be_written(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    words = re.escape(f"cannot write {place}: ")
    with pytest.raises(DMPError, match=words):
        files.write_bytes(Path(place), b"x")
    if place != "folder":  # an empty folder may be taken
        with pytest.raises(DMPError, match=words):
            stage(Path(place))
    assert names_in(tmp_path) == ["file", "folder"]
