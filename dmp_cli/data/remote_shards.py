"""Webdataset shards behind an address, such as https:// or s3://.

Each shard is fetched once, to list its members, and kept on this machine as long as there is room for it. What is kept
is known by its address and its etag, the mark that a server gives to a content. An image of a shard that is not kept is
read by itself, as a range of bytes: images are shown in any order, so that fetching whole shards again would be worse.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..errors import DataError
from ..runtime import tracking
from ..storage import cache_folder, cannot_write, home_folder, make_folder, read_object, staged_file, write_json
from .addresses import Described, describe, find_matching, reaching, read_range
from .shard_files import OpenFile, OpenShard
from .shard_members import Members, Sample, list_members
from .shard_paths import expand_pattern

_PIECE = 1 << 22  # bytes that are fetched at once
_ASKED = 16  # addresses that are asked for at once


class RemoteShard:
    """One shard behind an address."""

    def __init__(self, url: str, told: Described, *, limit: int) -> None:
        self.url, self.size, self.etag, self._limit = url, told.size, told.mark, limit
        key = hashlib.sha256(f"{url}\0{self.etag}\0{self.size}".encode()).hexdigest()[:32]
        self.kept = shard_cache() / f"{key}.tar"
        _listed_now.add(self.kept.name)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def place(self) -> str:
        return self.url

    @property
    def beside(self) -> Path | None:
        return None

    def state(self) -> tuple[str, int, int | str]:
        return self.url, self.size, self.etag

    def head(self, offsets: Sequence[int]) -> int:
        return 0  # what is kept of it is known by its etag as well

    def members(self, rules: int) -> Members:
        """The samples, as they were listed before, or of the shard, which is fetched for it."""
        index = self.kept.with_suffix(f".{rules}.json")
        make_folder(index.parent)
        with FileLock(f"{self.kept}.lock"):
            if index.exists():
                with contextlib.suppress(DataError, KeyError, TypeError, ValueError):
                    return _listed(read_object(index, kind=DataError))
            if self.kept.exists():  # listed by other rules
                found = self._list(self.kept, rules)
            else:
                found = self._fetch(rules)
            samples = [[sample.name, list(sample.row)] for sample in found.samples]
            write_json(index, {"url": self.url, "etag": self.etag, "samples": samples, "passed": found.passed_over})
            return found

    def time(self) -> int:
        return 0

    def open(self) -> OpenShard:
        try:
            file = OpenFile(self.kept)
            os.utime(self.kept)  # the last that is used is the last that goes
            return file
        except OSError:
            return _Ranges(self)

    def _fetch(self, rules: int) -> Members:
        """Fetch the shard, list it, and keep it if there is room."""
        keeps = make_room(self.size, self._limit)
        place = self.kept if keeps else self.kept.with_suffix(".passing")
        with staged_file(place) as partial, reaching(self.url), open(partial, "wb") as file:
            for begin in range(0, self.size, _PIECE):
                file.write(read_range(self.url, begin, min(begin + _PIECE, self.size), whole=self.size))
        try:
            return self._list(place, rules)
        finally:
            if not keeps:
                place.unlink(missing_ok=True)

    def _list(self, place: Path, rules: int) -> Members:
        """The samples of the shard, which lies at ``place``. One that is damaged does not stay there."""
        try:
            return list_members(place, rules=rules)
        except DataError as error:
            place.unlink(missing_ok=True)
            raise DataError(error.message.replace(str(place), self.url), hint=error.hint) from error


class _Ranges:
    """A shard that is not kept: what is asked for is fetched."""

    def __init__(self, shard: RemoteShard) -> None:
        self._shard = shard

    def read(self, offset: int, size: int) -> bytes:
        with reaching(self._shard.url):
            return read_range(self._shard.url, offset, offset + size, whole=self._shard.size)


def find_remote(pattern: str, *, limit: int, may_keep: bool = True) -> list[RemoteShard]:
    """The shards that an address names, with ``{000..146}`` or ``*`` in it.

    Args:
        limit: bytes of shards that are kept on this machine, of all data sets together.

    Raises:
        DataError: one is not there, none is, or there are too many; or fsspec is not installed.
    """
    urls: list[str] = []
    for url in expand_pattern(pattern):
        if "*" in url:
            urls += find_matching(url)
        else:
            urls.append(url)
    if not urls:
        raise DataError(f"{pattern} names no shard that is there")
    if wrong := [url for url in urls if not url.partition("?")[0].endswith(".tar")]:
        raise DataError(f"{wrong[0]} is no webdataset shard", hint="Data behind an address are .tar shards.")
    found = []
    with tracking("look for shards", len(urls)) as advance, ThreadPoolExecutor(_ASKED) as pool:
        for url, told in zip(urls, pool.map(describe, urls), strict=True):
            found.append(RemoteShard(url, told, limit=limit if may_keep else 0))
            advance(len(found), "")
    return found


def shard_cache() -> Path:
    """The folder of the shards that are kept."""
    return (cache_folder() or home_folder()) / "shards"


def make_room(size: int, limit: int) -> bool:
    """Remove the shards that were not used for longest until ``size`` bytes more stay below ``limit``; whether they do.

    Nothing is removed for a shard that is larger than all room.
    """
    if size > limit:
        return False
    kept = []
    for path in shard_cache().glob("*.tar"):
        with contextlib.suppress(OSError):
            state = path.stat()
            kept.append((state.st_mtime_ns, state.st_size, path))
    total = sum(one[1] for one in kept)
    for _, own, path in sorted(kept):
        if total + size <= limit:
            break
        if _is_new(path):  # of the data that is being listed now: it would only make room for its own next shard
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        total -= own
    return total + size <= limit


def _is_new(path: Path) -> bool:
    return path.name in _listed_now


_listed_now: set[str] = set()  # names of the shards that this process keeps or uses


def _listed(content: dict[str, Any]) -> Members:
    """What an index says. Raises KeyError, TypeError or ValueError for one that is none."""
    samples = [Sample(str(name), tuple(int(value) for value in row)) for name, row in content["samples"]]
    if any(len(sample.row) != 6 for sample in samples):
        raise ValueError("an index of other columns")
    return Members(samples, [str(name) for name in content["passed"]])
