"""Images that are no folder, zip or shards of this machine: rows of a table, and shards behind an address."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..config import address, table_name
from .bounds import Bounds
from .classes import ClassNames
from .columns import Columns
from .kinds import BEFORE_SAMPLES
from .source import ImageSource

_GB = 1_000_000_000


class Elsewhere(NamedTuple):
    """How images elsewhere are read."""

    columns: Columns = Columns()  # of a table
    download: bool = False  # whether a table may be fetched from the hub
    cache_size: int = 50  # GB of remote shards that are kept on this machine


def find_elsewhere(
    path: Path,
    how: Elsewhere,
    *,
    rules: int,
    named: ClassNames | None,
    recorded: tuple[str, ...] | None,
    bounds: Bounds,
) -> ImageSource | None:
    """The images that ``path`` names, if they are elsewhere; else None. Arguments as of :func:`find_images`.

    Raises:
        DataError: they cannot be reached or read.
    """
    name = table_name(path)
    if name is not None:
        from .tables import find_table

        named = named or (None if recorded is None else ClassNames(recorded, "the run's record"))
        return find_table(
            path, name, columns=how.columns, download=how.download, rules=rules, named=named, bounds=bounds
        )
    if (told := address(path)) is None:
        return None
    from .remote_shards import find_remote
    from .shards import ShardImages

    if named is None and recorded is not None and recorded != tuple(map(str, range(len(recorded)))):
        named = ClassNames(recorded, "the run's record")
    shards = find_remote(told, limit=how.cache_size * _GB, may_keep=how.cache_size > 0)
    images = ShardImages(path, shards, rules=min(rules, BEFORE_SAMPLES), named=named, bounds=bounds)
    images.origin = {shard.name: shard.etag for shard in shards}
    return images
