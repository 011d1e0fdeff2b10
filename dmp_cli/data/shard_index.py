"""The index of a set of shards: what they hold, listed once for all processes and starts, and mapped afterwards.

It is a folder beside the shards, or in the user's cache where that cannot be written, or the shards are behind an
address. It holds as long as name, size and time of every shard, some headers in it and its end are what they were; of
one behind an address its size and the server's mark. Any number of processes make it together: each lists a shard that
no other is listing, and one puts all together.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ..errors import DataError, DMPError
from ..runtime import counting
from ..storage import cache_folder, read_object, staged_folder, write_json
from .decoding import naming
from .kinds import read_suffixes
from .shard_files import ShardFile
from .shard_members import Members, Sample
from .shard_table import (
    COLUMNS,
    ShardTable,
    map_table,
    read_manifest,
    sum_of,
    table_in_memory,
    write_manifest,
    write_table,
)

LEAST = 64 << 20  # bytes of shards; fewer are listed in less than a second
_FORMAT = 1
_HEADERS = 8  # headers of a shard that are compared
_THREADS = 8
_TRIES = 2  # to list shards again that were changed while they were listed
_WAIT = 0.1  # seconds between two looks at what other processes are listing
_FAULTS = (OSError, ValueError, TypeError, KeyError, IndexError)


def find_table(path: Path, shards: Sequence[ShardFile], *, rules: int) -> ShardTable:
    """What ``shards``, which ``path`` names, hold: by their index, which is made where there is none.

    Raises:
        DataError: a shard is damaged or compressed.
    """
    if sum(shard.state()[1] for shard in shards) >= LEAST:
        indices = [ShardIndex(folder, shards, rules=rules) for folder in _folders(shards)]
        for index in indices:
            if (found := index.open()) is not None:
                return found
        for index in indices:
            try:
                return index.make(f"list {path.name}")
            except DataError:
                raise
            except (DMPError, OSError):  # it cannot be written there
                continue
    with counting(f"list {path.name}", len(shards)) as count:
        return table_in_memory(_listed(shards, rules, count), rules=rules)


def _listed(shards: Sequence[ShardFile], rules: int, count: Callable[[int], None]) -> Iterator[tuple[str, Members]]:
    for number, shard in enumerate(shards, start=1):
        with naming(str(shard)):
            members = shard.members(rules)
        count(number)
        yield shard.name, members


def _folders(shards: Sequence[ShardFile]) -> list[Path]:
    """Where the index may be: beside the shards, then in the cache, by the places of the shards."""
    beside, cache = shards[0].beside, cache_folder()
    key = hashlib.sha256("\n".join(shard.place for shard in shards).encode("utf-8", "surrogateescape"))
    found = [] if beside is None else [beside]
    return found if cache is None else [*found, cache / "indices" / key.hexdigest()[:16]]


def _name_of(shards: Sequence[ShardFile], rules: int) -> str:
    told = [rules, sorted(read_suffixes(rules)), [shard.name for shard in shards]]
    return f".dmp-index-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}"


class ShardIndex:
    """The index of ``shards`` in ``folder``."""

    def __init__(self, folder: Path, shards: Sequence[ShardFile], *, rules: int) -> None:
        self._shards, self._rules = shards, rules
        self.place = folder / _name_of(shards, rules)
        self._pieces = folder / f"{self.place.name}.pieces"

    def open(self) -> ShardTable | None:
        """The samples; None: there is no index, it is damaged, or a shard is another than when it was made."""
        try:
            told = read_manifest(self.place)
            if told["format"] != _FORMAT or told["shards"] != self._states():
                return None
            if not self._is_whole(told):
                return None
            table = map_table(self.place)
            return table if self._heads(table) == told["heads"] else None
        except (*_FAULTS, DMPError):
            return None

    def _is_whole(self, told: dict[str, Any]) -> bool:
        with ThreadPoolExecutor(_THREADS) as pool:  # the sums of the files take most of the time
            sums = pool.map(sum_of, [self.place / column for column in COLUMNS])
            return bool(dict(zip(COLUMNS, sums, strict=True)) == told["sums"])

    def make(self, title: str) -> ShardTable:
        """List the shards together with any other process that does, and open what came of it.

        Raises:
            DataError: a shard is damaged.
            DMPError, OSError: the index cannot be written here.
        """
        self.place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.place.parent / f"{self.place.name}.lock")
        tries = 0
        with counting(title, len(self._shards)) as count:
            while tries <= _TRIES:
                with lock:
                    if (found := self.open()) is not None:
                        return found
                    states = self._states()
                    self._keep_unchanged(states)
                    shutil.rmtree(self.place, ignore_errors=True)
                while self._list_missing(states, count):
                    time.sleep(_WAIT)
                with lock:
                    if not self._is_made(states):  # no other process was first
                        self._put_together(states)
                tries += 1
        raise OSError("the shards change all the time, or hold no images")

    def _keep_unchanged(self, states: list[list[Any]]) -> None:
        """Take over from a former index the shards that are as they were, so that only the others are listed."""
        try:
            told = read_manifest(self.place)
            if told["format"] != _FORMAT or told["summary"]["passed_over"] or not self._is_whole(told):
                return  # whose shards passed over which images is not told
            table = map_table(self.place)
            now, spans = self._heads(table), table.summary.spans
            for number, state in enumerate(states):
                if told["shards"][number] == state and told["heads"][number] == now[number]:
                    self._pieces.mkdir(exist_ok=True)
                    self._write_piece(number, state, Members(table.samples(spans[number], spans[number + 1]), []))
        except (*_FAULTS, DMPError):
            return

    def _write_piece(self, number: int, state: list[Any], found: Members) -> None:
        samples = [[sample.name, list(sample.row)] for sample in found.samples]
        write_json(self._piece(number, state), {"samples": samples, "passed": found.passed_over})

    def _list_missing(self, states: list[list[Any]], count: Callable[[int], None]) -> int:
        """List the shards that nobody has listed or is listing; how many others are listing."""
        left = 0
        for number, (shard, state) in enumerate(zip(self._shards, states, strict=True)):
            piece = self._piece(number, state)
            if piece.exists():
                continue
            if self._is_made(states):
                return 0
            self._pieces.mkdir(exist_ok=True)
            try:
                with FileLock(self._pieces / f"{number:06d}.lock", timeout=0):
                    if not piece.exists():
                        with naming(str(shard)):
                            found = shard.members(self._rules)
                        self._write_piece(number, state, found)
            except Timeout:
                left += 1
            count(number + 1)
        return left

    def _is_made(self, states: list[list[Any]]) -> bool:
        try:
            return bool(read_manifest(self.place)["shards"] == states)
        except _FAULTS:
            return False

    def _put_together(self, states: list[list[Any]]) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        with staged_folder(self.place) as partial:
            summary, sums = write_table(partial, self._read_pieces(states), rules=self._rules)
            content = {"format": _FORMAT, "shards": states, "sums": sums, "summary": summary._asdict()}
            write_manifest(partial, content | {"heads": []})
            heads = self._heads(map_table(partial)) if summary.spans[-1] else []
            write_manifest(partial, content | {"heads": heads})
        shutil.rmtree(self._pieces, ignore_errors=True)

    def _read_pieces(self, states: list[list[Any]]) -> Iterator[tuple[str, Members]]:
        for number, (shard, state) in enumerate(zip(self._shards, states, strict=True)):
            told = read_object(self._piece(number, state), kind=DMPError)
            samples = [Sample(str(name), tuple(int(value) for value in row)) for name, row in told["samples"]]
            yield shard.name, Members(samples, [str(name) for name in told["passed"]])

    def _piece(self, number: int, state: list[Any]) -> Path:
        return self._pieces / f"{number:06d}-{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]}.json"

    def _states(self) -> list[list[Any]]:
        return [list(shard.state()) for shard in self._shards]

    def _heads(self, table: ShardTable) -> list[int]:
        """A sum of some headers of each shard, evenly from the first to the last, and of its end."""
        spans = table.summary.spans

        def head(number: int) -> int:
            first, last = spans[number], spans[number + 1] - 1
            places = np.unique(np.linspace(first, last, _HEADERS).astype(np.int64)).tolist() if last >= first else []
            return self._shards[number].head([int(table.images[place, 0]) for place in places])

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(head, range(len(self._shards))))
