"""Zips from anybody: no member gives more bytes than it declares, and none declares more than is allowed."""

from __future__ import annotations

import bz2
import contextlib
import copy
import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from ..storage import open_regular, physical_memory
from .bounds import Bounds

_ENCRYPTED = 0x1  # a flag of a member
_DIRECTORY = 1 << 30  # bytes of the list of members: about ten million of them
_LISTED = 16  # times what a list has on disk it takes in memory, at most
_WINDOW = 1 << 28  # bytes that LZMA may look back


def open_zip(path: str | Path) -> zipfile.ZipFile:
    """Open a zip.

    Raises:
        OSError: it is no regular file, or cannot be opened.
        ValueError: it has too many members to list.
        zipfile.BadZipFile: it is damaged, or no zip.
    """
    with open_regular(path) as file:
        _check_directory(file)
    return zipfile.ZipFile(path)


def is_zip(path: str | Path) -> bool:
    """Whether a regular file is a zip, by its end."""
    with contextlib.suppress(OSError), open_regular(path) as file:
        return zipfile.is_zipfile(file)
    return False


def read_member(archive: zipfile.ZipFile, name: str, *, bounds: Bounds) -> bytes:
    """The bytes of a member.

    Raises:
        ValueError: it is larger than ``bounds`` allow, encrypted, or not as large as it declares.
        zipfile.BadZipFile: it is damaged.
        KeyError: there is no such member.
    """
    member = archive.getinfo(name)
    if member.flag_bits & _ENCRYPTED:
        raise ValueError("it is encrypted")
    for size in (member.file_size, member.compress_size):
        bounds.check_size(size)
    if member.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        data = _inflate(_compressed(archive, member), member)
    else:
        with archive.open(member) as file:
            data = file.read(member.file_size + 1)  # without a number, all that the member gives is inflated at once
    if len(data) != member.file_size:
        raise ValueError(f"it does not give the {member.file_size:,} bytes that it declares")
    return data


def _check_directory(file: BinaryIO) -> None:
    end: Any = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # what ZipFile goes by
    size = end[5] if end else 0  # bytes of the list of members
    if size > _DIRECTORY or size * _LISTED > physical_memory() // 2:
        raise ValueError(f"it lists its members in {size / 1e6:,.0f} MB: too many for one zip")


def _compressed(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member as they lie in the zip."""
    stored = copy.copy(member)
    stored.compress_type, stored.file_size = zipfile.ZIP_STORED, member.compress_size
    stored.CRC = None  # type: ignore[assignment]  # that of the member is of its content
    with archive.open(stored) as file:
        return file.read()


# zipfile gives these two as much memory as they ask for, whatever the member declares
def _inflate(data: bytes, member: zipfile.ZipInfo) -> bytes:
    room = member.file_size + 1
    try:
        if member.compress_type == zipfile.ZIP_BZIP2:
            content = bz2.BZ2Decompressor().decompress(data, room)
        else:
            content = _lzma(data).decompress(data[_lzma_start(data) :], room)
    except (OSError, EOFError, struct.error, lzma.LZMAError) as error:
        raise zipfile.BadZipFile(f"its compressed bytes are damaged: {error}") from error
    if len(content) == member.file_size and zlib.crc32(content) != member.CRC:
        raise zipfile.BadZipFile("its bytes are not those that its sum is of")
    return content


def _lzma_start(data: bytes) -> int:
    """Where the compressed bytes begin, after the properties (APPNOTE 5.8.8)."""
    return 4 + int(struct.unpack_from("<H", data, 2)[0])


def _lzma(data: bytes) -> lzma.LZMADecompressor:
    properties, window = struct.unpack_from("<BI", data, 4)
    if window > _WINDOW:
        raise ValueError(f"it looks back {window:,} bytes, more than any image needs")
    rest, literals = divmod(properties, 9)  # lc, then lp and pb
    positions, low = divmod(rest, 5)
    how = {"id": lzma.FILTER_LZMA1, "dict_size": window, "lc": literals, "lp": low, "pb": positions}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[how])
