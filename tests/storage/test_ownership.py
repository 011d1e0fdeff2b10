"""A folder has one owner at a time: whoever comes second is told who that is, and nothing is changed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from dmp_cli.errors import ConfigError, DMPError
from dmp_cli.storage.ownership import check_unowned, clear_owned, own, owner_files, refuse_existing
from dmp_cli.storage.partials import host_name

from .folders import names_in

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, seconds: float, ready: multiprocessing.synchronize.Event) -> None:
    with own(folder, command="dmp train"):
        ready.set()
        time.sleep(seconds)


def refused(folder: Path, match: str) -> DMPError:
    with pytest.raises(DMPError, match=match) as caught, own(folder, command="x"):
        pass
    return caught.value


@pytest.fixture
def holder(tmp_path):
    ready = FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path / "run", 600, ready), daemon=True)
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


def test_the_second_is_told_who_holds_it(tmp_path, holder):
    before = names_in(tmp_path)
    caught = refused(tmp_path / "run", "is in use: dmp train holds it")
    assert f"host {host_name()}, pid {holder.pid}, since 20" in caught.message
    assert "nothing was changed" in caught.message
    assert "-o" in caught.hint
    assert names_in(tmp_path) == before
    with pytest.raises(ConfigError, match="is in use"):
        check_unowned(tmp_path / "run")


def test_a_dead_owner_of_this_host_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.join()
    lock, note = owner_files(tmp_path / "run")
    assert json.loads(note.read_text())["pid"] == holder.pid
    with own(tmp_path / "run", command="dmp eval"):
        assert json.loads(note.read_text())["pid"] == os.getpid()
    assert not note.exists()
    assert not lock.exists()
    check_unowned(tmp_path / "run")


def test_where_the_file_system_has_no_locks_the_note_has_to_do(tmp_path, monkeypatch):
    def without(lock: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", without)
    monkeypatch.setattr("filelock.FileLock.release", lambda lock: None)
    with own(tmp_path / "run", command="dmp train"):
        refused(tmp_path / "run", f"is in use: dmp train holds it .*pid {os.getpid()}")
    with own(tmp_path / "run", command="dmp train"):
        pass


def test_a_note_of_another_host_says_how_to_free_the_folder(tmp_path):
    _, note = owner_files(tmp_path)
    note.write_text('{"command": "dmp train", "host": "node-7", "pid": 1, "since": "then"}')
    caught = refused(tmp_path, r"or was left in use: dmp train holds it \(host node-7")
    assert f"remove {note}" in caught.hint
    note.unlink()
    with own(tmp_path, command="dmp train"):
        pass


def test_a_folder_made_to_be_locked_goes_again(tmp_path):
    with own(tmp_path / "a" / "b", command="dmp eval"):
        assert names_in(tmp_path) == ["a", "a/b", "a/b/.owner.json", "a/b/.owner.lock"]
    assert names_in(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with own(tmp_path / "mine", command="dmp eval"):
        pass
    with own(tmp_path / "full", command="dmp eval"):
        (tmp_path / "full" / "report.json").write_text("{}")
    assert names_in(tmp_path) == ["full", "full/report.json", "mine"]


def test_its_parts_have_owners_of_their_own(tmp_path):
    with own(tmp_path, command="x", part="-1-of-2"), own(tmp_path, command="y", part="-2-of-2"):
        with pytest.raises(ConfigError, match="y holds it"), own(tmp_path, command="z", part="-2-of-2"):
            pass
        with pytest.raises(ConfigError, match="x holds it"):
            check_unowned(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/x"])
def test_where_no_folder_can_be(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    refused(tmp_path / place, r"is a file, not a folder|cannot write .*file/x: Not a directory")
    assert names_in(tmp_path) == ["file"]


def test_a_name_that_is_too_long(tmp_path):
    refused(tmp_path / ("x" * 300), "File name too long")


def test_clearing_leaves_the_lock(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_text("1")
    (tmp_path / "other").write_text("1")
    with own(tmp_path, command="x"):
        clear_owned(tmp_path)
        assert names_in(tmp_path) == [".owner.json", ".owner.lock"]
    assert names_in(tmp_path) == []


def contend(folder: Path, turns: int) -> None:
    """Own a folder again and again; while it is owned, nobody else may be in it."""
    signal.alarm(60)
    mark = folder.parent / "mark"
    done = 0
    while done < turns:
        try:
            with own(folder, command="x"):
                mark.touch(exist_ok=False)  # FileExistsError: two owners
                time.sleep(0.001)
                mark.unlink()
                done += 1
        except ConfigError:
            time.sleep(0.001)


def test_never_two_owners_though_the_folder_comes_and_goes(tmp_path):
    """The last owner removes the folder it has made: another may have opened the lock in it just before."""
    workers = [FORK.Process(target=contend, args=(tmp_path / "run", 40)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert names_in(tmp_path) in ([], ["run"])  # who did not make it does not remove it


def test_what_counts_as_existing(tmp_path):
    refuse_existing(tmp_path / "missing", force=False)
    refuse_existing(tmp_path, force=False)  # an empty folder
    (tmp_path / ".samples.json.host-1.partial").write_text("half")
    refuse_existing(tmp_path, force=False)  # a process was killed before its first file was whole
    (tmp_path / ".samples.json.host-1.partial").unlink()
    (tmp_path / "a").write_bytes(b"")
    for path in (tmp_path, tmp_path / "a"):
        refuse_existing(path, force=True)
        with pytest.raises(ConfigError, match="exists already") as caught:
            refuse_existing(path, force=False)
        assert "--force" in caught.value.hint
