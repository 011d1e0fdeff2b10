"""A folder of many files is listed by one process of each machine; the others map what it found.

A listing of a million files takes seconds and, while it is made, a gigabyte: eight processes need neither eight times.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..runtime import World
from .bounds import Bounds
from .containers import Archive, Folder
from .folder import FolderImages
from .folder_table import map_table, write_table
from .source import ImageSource

_FAULTS = (OSError, ValueError, TypeError, KeyError)


def find_together(find: Callable[[], ImageSource], *, world: World, path: Path, bounds: Bounds) -> ImageSource:
    """What ``find`` finds at ``path``; all processes of ``world`` call this.

    The first process of a machine writes the columns of a folder or zip into a temporary folder, which is removed as
    soon as the others have mapped them: a mapped file stays until it is let go. What is no folder or zip, or cannot be
    handed over, each process finds itself; shards have their index.

    Raises:
        DMPError: in all processes, where ``find`` raised it in one.
    """
    if world.size == 1:
        return find()
    token = world.tell(lambda: secrets.token_hex(8))
    place = Path(tempfile.gettempdir()) / f"dmp-listing-{platform.node()}-{token}"
    found: list[ImageSource] = []

    def list_here() -> None:
        if world.local_rank == 0:
            found.append(find())
            if isinstance(found[0], FolderImages):
                hand_over(found[0], place)

    def take() -> None:
        if not found:
            found.append(take_over(place, path=path, bounds=bounds) or find())

    try:
        world.each(list_here)
        world.each(take)
    finally:
        if world.local_rank == 0:
            shutil.rmtree(place, ignore_errors=True)
    return found[0]


def hand_over(images: FolderImages, place: Path) -> None:
    """Write the columns of ``images`` into the new folder ``place``; where they do not fit there, nothing is left."""
    container = images.container
    written = container.written if isinstance(container, Archive) else None
    try:
        place.mkdir(mode=0o700)
    except OSError:  # no room; or another process takes itself for the first of this machine too
        return
    try:
        write_table(place, images.table, written=written)
    except (OSError, UnicodeError):
        with contextlib.suppress(OSError):
            shutil.rmtree(place)


def take_over(place: Path, *, path: Path, bounds: Bounds) -> FolderImages | None:
    """The images at ``path`` by the columns in ``place``; None: they are not there."""
    try:
        table, more = map_table(place)
    except _FAULTS:
        return None
    if (written := more["written"]) is not None:
        return FolderImages(Archive(path, slashes=False, bounds=bounds, written=written), table)
    return FolderImages(Folder(path, wanted=lambda name: True, bounds=bounds), table)
