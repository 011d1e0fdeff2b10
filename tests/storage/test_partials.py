"""Half-written files say which process of which host writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dmp_cli.errors import DMPError
from dmp_cli.storage.atomic import write_bytes
from dmp_cli.storage.partials import host_name, is_abandoned, partial_of, remove_partials, whole_name

from .folders import names_in


def test_the_name_has_host_and_pid(tmp_path):
    assert partial_of(tmp_path / "a.b.json") == tmp_path / f".a.b.json.{host_name()}-{os.getpid()}.partial"
    assert whole_name(partial_of(tmp_path / "a.b.json").name) == "a.b.json"
    assert whole_name(".a.json.partial") == "a.json"  # as earlier versions wrote it
    assert whole_name("a.json") is None


def test_whose_process_is_gone(tmp_path):
    assert not is_abandoned(partial_of(tmp_path / "a").name)
    assert is_abandoned(f".a.{host_name()}-{2**22 + 1}.partial")  # more than the largest pid of Linux
    assert not is_abandoned(".a.another-1.partial")  # nobody here can know
    assert is_abandoned(".a.partial")


def test_a_long_name_is_written_all_the_same(tmp_path):
    for name in ("x" * 255, "ä" * 127):
        write_bytes(tmp_path / name, b"1")
    assert sorted(names_in(tmp_path)) == sorted(["x" * 255, "ä" * 127])
    with pytest.raises(DMPError, match="File name too long"):
        write_bytes(tmp_path / ("x" * 256), b"1")


def test_only_the_wanted_are_removed(tmp_path):
    for name in (".a.h-1.partial", ".b.h-1.partial", "b"):
        (tmp_path / name).write_text("half")
    remove_partials(tmp_path, wanted=lambda name: whole_name(name) == "a")
    assert names_in(tmp_path) == [".b.h-1.partial", "b"]


def test_the_next_write_removes_what_a_killed_one_left(tmp_path):
    dead, alive = f".a.{host_name()}-{2**22 + 1}.partial", ".a.another-1.partial"
    for name in (dead, alive, f".b.{host_name()}-{2**22 + 1}.partial"):
        (tmp_path / name).write_text("half")
    write_bytes(tmp_path / "a", b"1")
    assert names_in(tmp_path) == sorted([alive, f".b.{host_name()}-{2**22 + 1}.partial", "a"])


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("1")
    Path(tmp_path / ".x.h-1.partial").symlink_to(tmp_path / "kept")
    remove_partials(tmp_path)
    assert names_in(tmp_path) == ["kept", "kept/file"]
