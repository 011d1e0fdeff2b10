"""The index that wds2idx of NVIDIA's DALI writes beside a shard: where each member lies.

It is ``NAME.idx`` or ``NAME.tar.idx``: a line ``v1.2 COUNT``, then a line of ``extension offset size name`` of each
member for every sample. It is believed where it is no older than the shard, its members follow each other without a gap
from the first byte to the zeros at the end, and some headers say the same: then the others are not read. Any other
shard is listed by its headers.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..storage import open_regular

_VERSION = b"v1.2"  # the first with names
_WORDS = 4  # of a member
_BLOCK, _HEADERS = 512, 64  # bytes of a header; how many are compared
_FIRST = 64  # bytes that say how many samples there are
_MOST = 1 << 30  # bytes of an index


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    offset: int
    size: int
    is_sparse: bool = False


def find_index(shard: Path) -> Path | None:
    """The index beside a shard; None: there is none."""
    return next((file for file in (shard.with_suffix(".idx"), Path(f"{shard}.idx")) if file.is_file()), None)


def count_samples(index: Path) -> int | None:
    """How many samples an index lists: the second word of the file. None: it is no such index."""
    with open_regular(index) as file:
        words = file.read(_FIRST).split(maxsplit=2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"v") and words[1].isdigit() else None


def read_index(shard: Path, *, file: int) -> list[Member] | None:
    """The members of a shard, whose descriptor is ``file``, by its index; None: there is none that fits."""
    index = find_index(shard)
    try:
        if index is None or index.stat().st_mtime_ns < os.fstat(file).st_mtime_ns:
            return None
        members = _parse(index)
        return members if members and _follow_each_other(members, file) and _are_there(members, file) else None
    except (OSError, ValueError, tarfile.HeaderError):
        return None


def _parse(index: Path) -> list[Member] | None:
    with open_regular(index) as file:
        if os.fstat(file.fileno()).st_size > _MOST:
            return None
        first = file.readline(_FIRST).split()
        if len(first) != 2 or first[0] != _VERSION:
            return None
        members, lines = [], 0
        for line in file:
            words = line.decode("ascii").rstrip("\n").split(" ")
            if len(words) % _WORDS:
                return None
            offsets, sizes, names = (words[place::_WORDS] for place in (1, 2, 3))
            members += [Member(name, int(o), int(s)) for o, s, name in zip(offsets, sizes, names, strict=True)]
            lines += 1
        return members if lines == int(first[1]) else None


def _follow_each_other(members: list[Member], file: int) -> bool:
    """Whether the members fill the shard, so that none is missing: one header before each, and zeros at the end."""
    offsets, sizes = (np.array([member[place] for member in members], np.int64) for place in (1, 2))
    ends = offsets + (sizes + _BLOCK - 1) // _BLOCK * _BLOCK
    filled = bool((sizes >= 0).all() and offsets[0] == _BLOCK and (offsets[1:] == ends[:-1] + _BLOCK).all())
    return filled and os.pread(file, _BLOCK, int(ends[-1])) == bytes(_BLOCK)


def _are_there(members: list[Member], file: int) -> bool:
    """Whether some headers, evenly from the first to the last, say what the index says."""
    for place in np.unique(np.linspace(0, len(members) - 1, _HEADERS).astype(np.int64)).tolist():
        member = members[place]
        header = tarfile.TarInfo.frombuf(os.pread(file, _BLOCK, member.offset - _BLOCK), "ascii", "strict")
        if not header.isreg() or header.issparse() or (header.name, header.size) != (member.name, member.size):
            return False
    return True
