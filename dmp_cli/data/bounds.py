"""How much of a data set is taken on trust: nothing beyond a file size, and no link that leads out of its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..config import MAX_FILE_SIZE
from ..errors import DataError
from ..storage import open_regular, physical_memory

_MB = 1_000_000
_NOTE = 16  # MB of a text beside one image; longer ones are no captions


class Bounds(NamedTuple):
    """What may be read of a data set, whose files and archives may come from anybody."""

    max_file_size: int = MAX_FILE_SIZE  # MB of the largest file, or member of a zip or tar
    follow_links: bool = False  # whether links may lead out of the data set's folder

    def check_size(self, size: int) -> None:
        """Raise ValueError for a file of more bytes than are read."""
        if size > self.max_file_size * _MB:
            raise ValueError(f"it has {_in_mb(size)}, and --max-file-size is {_in_mb(self.max_file_size * _MB)}")
        memory = physical_memory()
        if size > memory // 2:
            raise ValueError(f"it has {_in_mb(size)}, and this machine has {_in_mb(memory)} of memory")

    def check_note(self, size: int) -> None:
        """Raise ValueError for a caption of one image that is no caption, by its bytes."""
        self.check_size(size)
        if size > _NOTE * _MB:
            raise ValueError(f"it has {_in_mb(size)}; a caption has {_NOTE} MB at most")

    def read(self, path: str | Path) -> bytes:
        """The bytes of a regular file. Raises OSError when it cannot be read, and ValueError when it is too large."""
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            self.check_size(size)
            data = file.read(size + 1)
            if len(data) > size:  # it grows, or is one of those files that say that they are empty
                data += file.read(self.max_file_size * _MB)
                self.check_size(len(data))
            return data

    def check_link(self, path: str | Path, *, folder: str | Path) -> None:
        """Raise DataError where ``path`` leads out of ``folder``, the data set's, unless that is allowed.

        A link that leads nowhere is left to whoever reads it.
        """
        if self.follow_links or not os.path.islink(path) or not os.path.exists(path):
            return
        target, inside = os.path.realpath(path), os.path.realpath(folder)
        if target != inside and not target.startswith(os.path.join(inside, "")):
            raise DataError(
                f"{path} is a link to {target}, out of the data set's folder",
                hint="Links of DVC, git-annex and the hub's cache do that: follow them with --follow-links.",
            )


BOUNDS = Bounds()


def _in_mb(size: int) -> str:
    return f"{size / _MB:,.0f} MB"
