"""Files appear whole, in one step, with the right mode and bytes."""

import hashlib
import json
import os
import stat
import struct

import pytest
import torch
from safetensors.torch import load

from dmp_cli.storage import atomic as files

from .folders import names_in


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


def test_text_and_json(tmp_path):
    files.write_text(tmp_path / "a.txt", "größer\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()
    files.write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "ä": [\n    1,\n    null\n  ]\n}\n'.encode()


def test_sha256_of_a_file_larger_than_one_read(tmp_path):
    data = os.urandom((1 << 22) + 5)
    (tmp_path / "a").write_bytes(data)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


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
