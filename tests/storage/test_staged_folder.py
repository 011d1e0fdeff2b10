"""A staged folder appears whole at the end, or not at all; leftovers of a killed process are removed."""

import os

import pytest

from dmp_cli.errors import DMPError
from dmp_cli.storage import atomic as files
from dmp_cli.storage.partials import partial_of, remove_partials

from .folders import names_in, stage


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
    left = partial_of(tmp_path / "set")
    left.mkdir()
    (left / "half").write_bytes(b"1")
    with files.staged_folder(tmp_path / "set") as staged:
        assert list(staged.iterdir()) == []
    left.mkdir()
    (left / "half").write_bytes(b"1")
    (tmp_path / ".a.bin.another-host-77.partial").write_bytes(b"1")
    (tmp_path / "kept.txt").write_bytes(b"1")
    remove_partials(tmp_path)
    assert names_in(tmp_path) == ["kept.txt", "set"]
    remove_partials(tmp_path / "missing")
