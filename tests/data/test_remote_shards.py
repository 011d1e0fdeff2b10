"""Shards behind an address: in fsspec's memory, and on a server of this machine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmp_cli.data import Elsewhere, find_images, remote_shards, shard_index
from dmp_cli.data.shards import ShardImages
from dmp_cli.errors import DataError
from tests.data.shard_files import write_tar

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of two images each."""
    folder = tmp_path / "here"
    folder.mkdir()
    for number in range(2):
        members = {f"{number}{row}.{kind}": content for row in range(2) for kind, content in (
            ("png", bytes([number, row]) * 3000), ("txt", f"image {number}{row}".encode()))}  # fmt: skip
        write_tar(folder / f"train-{number:03d}.tar", members)
    return folder


class Files:
    """What a server gives, and what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.ranges, self.address = folder, [], True, ""  # type: list[str]
        self.etag, self.modified = "one", ""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Files]:
    files = Files(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._give(whole=False)

        def do_GET(self) -> None:
            self._give(whole=True)

        def _give(self, *, whole: bool) -> None:
            path = files.folder / self.path.strip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content, asked = path.read_bytes(), self.headers.get("Range")
            if whole:
                files.asked.append(asked or "all")
            if asked and files.ranges and whole:
                first, last = asked.removeprefix("bytes=").split("-")
                part = content[int(first) : int(last) + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                content = part
            else:
                self.send_response(200)
            if files.etag:
                self.send_header("ETag", f'"{files.etag}"')
            if files.modified:
                self.send_header("Last-Modified", files.modified)
            self.send_header("Accept-Ranges", "bytes" if files.ranges else "none")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if whole:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    files.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kept() -> list[Path]:
    return sorted(remote_shards.shard_cache().glob("*.tar"))


def test_the_same_images_as_of_files_here(shards: Path) -> None:
    pytest.importorskip("aiohttp")
    here = find_images(shards)
    with serving(shards) as files:
        there = find_images(f"{files.address}/train-{{000..001}}.tar")
        assert there.fingerprint == here.fingerprint
        assert [there.read(row) for row in range(4)] == [here.read(row) for row in range(4)]
        assert there.caption(3) == "image 11"
        assert there.name(3) == f"{files.address}/train-001.tar/11.png"
        assert there.origin == {"train-000.tar": "one", "train-001.tar": "one"}
        assert len(kept()) == 2
        fetched = len(files.asked)
        again = find_images(f"{files.address}/train-{{000..001}}.tar")
        assert again.read(0) == here.read(0)
        assert len(files.asked) == fetched  # the index and the shards are here
        files.etag = "two"  # another content under the same name
        changed = find_images(f"{files.address}/train-000.tar")
        assert len(files.asked) == fetched + 1
        assert changed.origin == {"train-000.tar": "two"}


@pytest.mark.parametrize("modified", ["Fri, 27 Nov 2026 04:00:00 GMT", ""])
def test_a_server_without_etags_gives_no_content_of_before(shards: Path, modified: str) -> None:
    """The time of the file tells two contents apart, or where there is none the bytes do, of small and large shards."""
    pytest.importorskip("aiohttp")
    bulk = {f"{row}.bin": bytes(600_000) for row in range(3)}
    write_tar(shards / "train-001.tar", {"1.png": b"before", "1.txt": b"one", **bulk})
    with serving(shards) as files:
        files.etag, files.modified = "", modified
        address = f"{files.address}/train-{{000..001}}.tar"
        assert find_images(address).read(2) == b"before"
        fetched = files.asked.count("all")
        assert find_images(address).read(2) == b"before"
        assert files.asked.count("all") == fetched
        files.modified = modified.replace("04", "05")
        sizes = [shard.stat().st_size for shard in sorted(shards.iterdir())]
        other = {f"0{row}.{kind}": content for row in range(2) for kind, content in (
            ("png", bytes([9, row]) * 3000), ("txt", f"image 0{row}".encode()))}  # fmt: skip
        write_tar(shards / "train-000.tar", other)
        write_tar(shards / "train-001.tar", {"1.png": b"behind", "1.txt": b"one", **bulk})
        assert [shard.stat().st_size for shard in sorted(shards.iterdir())] == sizes
        found = find_images(address)
        assert (found.read(0), found.read(2)) == (other["00.png"], b"behind")


def test_what_is_not_kept_is_read_by_ranges(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    here = find_images(shards)
    with serving(shards) as files:
        none = Elsewhere(cache_size=0)
        images = find_images(f"{files.address}/train-{{000..001}}.tar", elsewhere=none)
        assert kept() == []
        listed = len(files.asked)
        assert images.read(2) == here.read(2)
        assert images.caption(2) == "image 10"
        assert [asked != "all" for asked in files.asked[listed:]] == [True, True]
        find_images(f"{files.address}/train-{{000..001}}.tar", elsewhere=none)
        assert len(files.asked) == listed + 2  # an index stays, so that no shard is fetched again to be listed
        files.ranges = False
        with pytest.raises(DataError, match="gives whole files only"):
            images.read(2)


def test_the_cache_is_bounded_and_the_longest_unused_goes(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (shards / "train-000.tar").stat().st_size
    memory = fsspec.filesystem("memory")
    try:
        for number in range(3):
            memory.pipe(f"/data/{number}.tar", (shards / "train-000.tar").read_bytes())
        for number in range(2):
            monkeypatch.setattr(remote_shards, "_listed_now", set())
            remote_shards.find_remote(f"memory://data/{number}.tar", limit=2 * size)[0].members(2)
        first, second = (remote_shards.find_remote(f"memory://data/{n}.tar", limit=2 * size)[0].kept for n in range(2))
        assert {*kept()} == {first, second}
        import os

        os.utime(first, (2e9, 2e9)), os.utime(second, (1e9, 1e9))
        monkeypatch.setattr(remote_shards, "_listed_now", set())
        (third,) = remote_shards.find_remote("memory://data/2.tar", limit=2 * size)
        third.members(2)
        assert {*kept()} == {first, third.kept}
        assert not remote_shards.make_room(3 * size, 2 * size)
        assert len(kept()) == 2
        third.kept.unlink()  # by another run: what is not there is read by ranges
        assert third.open().read(0, 10) == (shards / "train-000.tar").read_bytes()[:10]
    finally:
        memory.rm("/data", recursive=True)


def test_wildcards_and_what_is_not_there(shards: Path) -> None:
    memory = fsspec.filesystem("memory")
    try:
        for file in shards.iterdir():
            memory.pipe(f"/many/{file.name}", file.read_bytes())
        assert find_images("memory://many/*.tar").fingerprint == find_images(shards).fingerprint
    finally:
        memory.rm("/many", recursive=True)
    for path, said in (
        ("memory://many/train-{000..001}.tar", "there is no memory://many/train-000.tar"),
        ("memory://many/*.tar", "names no shard that is there"),
        ("memory://many/photos.zip", "is no webdataset shard"),
        ("https://127.0.0.1:1/x.tar", "cannot be read"),
        ("nosuch://x/y.tar", "nosuch://x/y.tar"),
        ("memory://many/{0..999999}.tar", "more than 100,000 shards"),
        ("pipe:cat x.tar", "No command is run"),
    ):
        with pytest.raises(DataError) as told:
            find_images(path)
        assert said in f"{told.value.message} {told.value.hint}"


def test_a_damaged_shard_is_named_and_not_kept(shards: Path) -> None:
    memory = fsspec.filesystem("memory")
    whole = (shards / "train-000.tar").read_bytes()
    try:
        memory.pipe("/bad/cut.tar", whole[: len(whole) // 2])
        with pytest.raises(DataError, match=r"memory://bad/cut\.tar"):
            find_images("memory://bad/cut.tar")
    finally:
        memory.rm("/bad", recursive=True)
    assert kept() == []


def test_a_set_has_one_index_in_the_cache(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was listed is mapped at the next start; of what the server marks as changed, that alone is listed."""
    memory, listed = fsspec.filesystem("memory"), []
    members = remote_shards.RemoteShard.members

    def counted(shard: remote_shards.RemoteShard, rules: int) -> Any:
        listed.append(shard.name)
        return members(shard, rules)

    monkeypatch.setattr(remote_shards.RemoteShard, "members", counted)
    monkeypatch.setattr(shard_index, "LEAST", 0)
    cache = remote_shards.shard_cache().parent
    monkeypatch.setattr(shard_index, "cache_folder", lambda: cache)
    try:
        for file in shards.glob("*.tar"):
            memory.pipe(f"/set/{file.name}", file.read_bytes())
        expected = find_images(shards)
        first = find_images("memory://set/*.tar")
        assert listed == ["train-000.tar", "train-001.tar"]
        assert len(list(cache.glob("indices/*/.dmp-index-*/manifest.json"))) == 1
        again = find_images("memory://set/*.tar")
        assert len(listed) == 2
        assert isinstance(again, ShardImages)
        assert isinstance(again._table.images, np.memmap)
        for found in (first, again):
            assert found.fingerprint == expected.fingerprint
            assert [found.read(row) for row in range(4)] == [expected.read(row) for row in range(4)]
            assert found.caption(3) == "image 11"
        write_tar(shards / "train-001.tar", {"new.png": b"new", "new.txt": b"a new one"})
        memory.pipe("/set/train-001.tar", (shards / "train-001.tar").read_bytes())
        changed = find_images("memory://set/*.tar")
        assert listed == ["train-000.tar", "train-001.tar", "train-001.tar"]
        assert changed.fingerprint == find_images(shards).fingerprint
        assert (len(changed), changed.read(2), changed.caption(2)) == (3, b"new", "a new one")
    finally:
        memory.rm("/set", recursive=True)


@pytest.mark.parametrize("content", ["", "{", '{"samples": [["a.png", [0]]], "passed": []}', '{"samples": 3}', "[1]"])
def test_a_damaged_index_is_made_anew(content: str, shards: Path) -> None:
    memory = fsspec.filesystem("memory")
    try:
        memory.pipe("/one/s.tar", (shards / "train-000.tar").read_bytes())
        expected = find_images("memory://one/s.tar").fingerprint
        (index,) = remote_shards.shard_cache().glob("*.json")
        index.write_text(content)
        assert find_images("memory://one/s.tar").fingerprint == expected
        assert len(index.read_text()) > len(content)
    finally:
        memory.rm("/one", recursive=True)
