"""A webdataset shard as a file: of this machine here, behind an address in ``remote_shards``."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..storage import open_regular
from .shard_members import Members, list_members

_BLOCK, _END = 512, 1024  # bytes of a header, and of a tar's end


class OpenShard(Protocol):
    """A shard that is read at any offset, by several threads at once."""

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, or fewer where the shard ends."""


class ShardFile(Protocol):
    """One shard; as a text it is the path or address, for messages."""

    @property
    def name(self) -> str:
        """The name of the file, without its folder."""

    @property
    def place(self) -> str:
        """Its whole path or address."""

    @property
    def beside(self) -> Path | None:
        """The folder it lies in, where that is one of this machine."""

    def members(self, rules: int) -> Members:
        """The samples in it. Raises DataError; see :func:`list_members`."""

    def state(self) -> tuple[str, int, int | str]:
        """What it is known by without being read: its name, its size in bytes, and its time or a server's mark."""

    def head(self, offsets: Sequence[int]) -> int:
        """CRC-32 of the headers in front of ``offsets`` and of its end; 0 where its mark tells contents apart."""

    def time(self) -> int:
        """When it was changed, in ns; 0: unknown."""

    def open(self) -> OpenShard:
        """The shard, to be read; it stays open as long as a reference to it exists."""


class LocalShard:
    """A shard of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def place(self) -> str:
        return str(self.path.absolute())

    @property
    def beside(self) -> Path | None:
        return self.path.parent

    def members(self, rules: int) -> Members:
        return list_members(self.path, rules=rules)

    def state(self) -> tuple[str, int, int | str]:
        state = self.path.stat()
        return self.name, state.st_size, state.st_mtime_ns

    def head(self, offsets: Sequence[int]) -> int:
        found = 0
        with open_regular(self.path) as file:
            for offset in offsets:
                file.seek(max(0, offset - _BLOCK))
                found = zlib.crc32(file.read(_BLOCK), found)
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _END))
            return zlib.crc32(file.read(_END), found)

    def time(self) -> int:
        return self.path.stat().st_mtime_ns

    def open(self) -> OpenShard:
        return OpenFile(self.path)


class OpenFile:
    """An open file's descriptor, closed when no reference to this object is left.

    If it were closed earlier, a thread that is about to read could find another file under the same descriptor.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path)
        self.number = self._file.fileno()

    def read(self, offset: int, size: int) -> bytes:
        # pread uses no file position, which forked processes and threads would share
        return os.pread(self.number, size, offset)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
