"""dmp_cli.storage.regular: only regular files are opened, and what is none is refused at once and by its kind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dmp_cli.errors import ConfigError
from dmp_cli.storage.regular import open_regular, read_regular, what_is
from dmp_cli.storage.text import read_text


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_a_fifo_does_not_wait_for_its_writer(fifo: Path) -> None:
    assert what_is(fifo) == "a FIFO"
    with pytest.raises(OSError, match="a FIFO, not a file"):
        open_regular(fifo)
    with pytest.raises(ConfigError, match="--plan is a FIFO, not a file"):
        read_text(fifo, name="--plan")


def test_sockets_devices_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as open_socket:
        open_socket.bind("socket")
        for path, kind in (("socket", "a socket"), ("/dev/zero", "a device"), (".", "a folder")):
            assert what_is(path) == kind
            with pytest.raises(OSError, match=f"{kind}, not a file"):
                read_regular(path)


def test_files_and_links_to_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link") == b"text"
    assert what_is(tmp_path / "link") is what_is(tmp_path / "gone") is None
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "gone")


def test_a_fifo_that_takes_the_place_of_a_file(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fifo.parent / "a").write_bytes(b"text")
    state = os.stat(fifo.parent / "a")
    monkeypatch.setattr(os, "stat", lambda path: state)  # as it was a moment ago
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    with pytest.raises(OSError, match="a FIFO, not a file"):
        open_regular(fifo)
    if before:
        assert set(os.listdir("/proc/self/fd")) == before  # nothing stays open
