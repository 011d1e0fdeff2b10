"""Files appear whole or not at all: what a full disk, a killed process or a bad place leaves behind."""

import errno
import hashlib
import json
import os
import re
import resource
import stat
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from dmp_cli.errors import ConfigError, DMPError
from dmp_cli.storage import atomic as files


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def stage(path, **contents):
    with files.staged_folder(path) as staged:
        for name, content in contents.items():
            (staged / name).write_bytes(content)


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "new" / "deep" / "a.bin"
    files.write_bytes(path, b"first")
    files.write_bytes(path, b"second, longer")
    assert path.read_bytes() == b"second, longer"
    assert names_in(tmp_path) == ["new", "new/deep", "new/deep/a.bin"]


def test_data_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(stat.S_ISDIR(os.fstat(fd).st_mode)) or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append("rename") or replace(a, b))
    files.write_bytes(tmp_path / "a.bin", b"x")
    assert calls == [False, "rename", True]  # the file, the rename, the folder


def test_many_files(tmp_path):
    contents = {f"{n:03d}.bin": bytes([n]) * n for n in range(40)}
    files.write_many(tmp_path / "new", contents)
    files.write_many(tmp_path / "new", {"005.bin": b"other"})
    files.write_many(tmp_path / "new", {})
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {**contents, "005.bin": b"other"}


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


def test_a_reader_of_the_old_file_keeps_it(tmp_path):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    with open(path, "rb") as reader:
        files.write_bytes(path, b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_mode_respects_the_umask(tmp_path, umask, mode):
    path = tmp_path / "a.bin"
    before = os.umask(umask)
    try:
        files.write_bytes(path, b"1")
        files.write_bytes(path, b"2")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


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


def test_text_and_json(tmp_path):
    files.write_text(tmp_path / "a.txt", "größer\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()
    files.write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "ä": [\n    1,\n    null\n  ]\n}\n'.encode()


def test_a_staged_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "out" / "set"
    with files.staged_folder(target) as staged:
        (staged / "inner").mkdir()
        (staged / "inner" / "a").write_bytes(b"1")
        assert not target.exists()
    assert names_in(tmp_path / "out") == ["set", "set/inner", "set/inner/a"]


def test_everything_in_a_staged_folder_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    calls, fsync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(os.fstat(fd).st_ino) or fsync(fd))
    monkeypatch.setattr(os, "rename", lambda a, b: calls.append("rename") or rename(a, b))
    with files.staged_folder(tmp_path / "set") as staged:
        (staged / "inner").mkdir()
        (staged / "inner" / "a").write_bytes(b"1")
    inside = {path.stat().st_ino for path in [tmp_path / "set", *(tmp_path / "set").rglob("*")]}
    assert len(inside) == 3
    assert set(calls[: calls.index("rename")]) == inside


def test_a_staged_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        stage(tmp_path / "set", a=b"1", b=None)
    assert names_in(tmp_path) == []


def test_a_staged_folder_never_replaces_another(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_bytes(b"1")
    with pytest.raises(DMPError, match=r"cannot write .*set"):
        stage(tmp_path / "set", a=b"2")
    assert names_in(tmp_path) == ["set", "set/mine"]


def test_leftovers_of_a_killed_process(tmp_path):
    left = tmp_path / "set.partial"
    left.mkdir()
    (left / "half").write_bytes(b"1")
    with files.staged_folder(tmp_path / "set") as staged:
        assert list(staged.iterdir()) == []
    left.mkdir()
    (left / "half").write_bytes(b"1")
    (tmp_path / ".a.bin.partial").write_bytes(b"1")
    (tmp_path / "kept.txt").write_bytes(b"1")
    files.remove_partials(tmp_path)
    assert names_in(tmp_path) == ["kept.txt", "set"]
    files.remove_partials(tmp_path / "missing")


def test_sha256_of_a_file_larger_than_one_read(tmp_path):
    data = os.urandom((1 << 22) + 5)
    (tmp_path / "a").write_bytes(data)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_what_counts_as_existing(tmp_path):
    files.refuse_existing(tmp_path / "missing", force=False)
    files.refuse_existing(tmp_path, force=False)  # an empty folder
    (tmp_path / ".samples.json.partial").write_text("half")
    files.refuse_existing(tmp_path, force=False)  # a process was killed before its first file was whole
    (tmp_path / ".samples.json.partial").unlink()
    (tmp_path / "a").write_bytes(b"")
    for path in (tmp_path, tmp_path / "a"):
        files.refuse_existing(path, force=True)
        with pytest.raises(ConfigError, match="exists already") as caught:
            files.refuse_existing(path, force=False)
        assert "--force" in caught.value.hint


def test_safetensors_bytes_are_the_same_every_time():
    tensors = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.tensor(1.5, requires_grad=True), "c": torch.zeros(0)}
    metadata = {f"key {n}": "ä" * n for n in range(9)}
    data = files.safetensors_bytes(tensors, metadata)
    assert {files.safetensors_bytes(tensors, metadata) for _ in range(9)} == {data}
    read = load(data)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    (length,) = struct.unpack("<Q", data[:8])
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["__metadata__"] == metadata
