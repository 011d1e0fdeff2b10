"""Which shards a path names: one tar, a folder of them, or a pattern with a range or with wildcards."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .bounds import BOUNDS, Bounds
from .kinds import RULES, is_read

_SUFFIX = ".tar"
_PIPE = re.compile(r"^pipe:")
_RANGE = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
_MOST = 100_000  # shards that a pattern may name
_LONGEST = 18  # digits of a number in a range


def find_shards(path: Path, *, rules: int = RULES, bounds: Bounds = BOUNDS) -> list[Path]:
    """The shards that ``path`` names: a .tar, a folder of them, or a pattern with ``*`` or ``{000..146}``; else none.

    Raises:
        DataError: nothing matches a pattern, a shard of a range is missing, a range has too many of them, a shard in a
            folder is a link out of it, or ``path`` is a command.
    """
    text = str(path)
    if _PIPE.match(text):
        raise DataError(
            f"{text} is not on this machine", hint="No command is run to read data: give the address itself."
        )
    if path.is_dir():
        found = sorted(inner for inner in path.iterdir() if inner.suffix == _SUFFIX and not inner.name.startswith("."))
        return _inside(found, bounds) if found and not _has_images(path, rules) else []
    if path.is_file():
        return [path] if path.suffix == _SUFFIX else []
    if not _RANGE.search(text) and not glob.has_magic(text):
        return []
    _check_count(text)
    found = [Path(name) for pattern in _expand(text) for name in sorted(glob.glob(pattern)) or [pattern]]
    missing = [shard for shard in found if not shard.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more are missing" if missing[1:] else ""
        raise DataError(f"there is no {missing[0]}{more}")
    return _inside(found, bounds)


def expand_pattern(pattern: str) -> list[str]:
    """What a pattern with ranges such as ``{000..146}`` names, in order. Raises DataError where that is too much."""
    _check_count(pattern)
    return list(_expand(pattern))


def _inside(shards: list[Path], bounds: Bounds) -> list[Path]:
    for shard in shards:
        bounds.check_link(shard, folder=shard.parent)
    return shards


def _check_count(pattern: str) -> None:
    """Raise DataError where a pattern names too many shards: they are counted before they are listed."""
    count = 1
    for first, last in _RANGE.findall(pattern):
        long = max(len(first), len(last)) > _LONGEST
        count *= _MOST + 1 if long else max(0, int(last) - int(first) + 1)
    if count > _MOST:
        raise DataError(
            f"{pattern} names more than {_MOST:,} shards", hint="Give the folder of the shards, or a pattern with *."
        )


def _has_images(folder: Path, rules: int) -> bool:
    """Whether single images lie beside the shards; the preview that ``dmp sample`` puts there is none of the data."""
    names = {inner.name for inner in folder.iterdir()}
    preview = {"grid.png"} if "samples.json" in names else set()
    return any(is_read(name, rules) for name in names - preview)


def _expand(pattern: str) -> Iterator[str]:
    """Expand ``a{08..10}`` to a08, a09, a10; several ranges give all combinations."""
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match[1], match[2]
    for number in range(int(first), int(last) + 1):
        yield from _expand(f"{pattern[: match.start()]}{number:0{len(first)}d}{pattern[match.end() :]}")
