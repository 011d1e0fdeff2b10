"""The images of a folder of samples, single files or in tars: which are there, which are whole, and what is wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..data import BOUNDS, GRID, IMAGE, LATENT, image_name, index_of, naming
from ..errors import DataError
from .image_names import ImageNames
from .sums import SampleSums, find_faults
from .tars import SampleTars

_MOST_MISSING = 10_000  # images that are looked for in vain, where a record claims more than there are


class FolderImages:
    """What is in one folder, compared with its sums. A million images take some bytes each."""

    def __init__(self, path: Path, sums: SampleSums, tars: SampleTars) -> None:
        self._path, self._sums, self._tars = path, sums, tars

    def there(self) -> ImageNames:
        """Names of all images and latents. The single files are listed first: they move from there into tars."""
        found = ImageNames()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.endswith((IMAGE, LATENT)) and entry.name != GRID:
                    found.add(entry.name)
        for name in self._tars.names():
            found.add(name)
        return found

    def whole(self) -> ImageNames:
        """Names of the images and latents that are there and whose sum is recorded."""
        there = self.there()
        return ImageNames(name for name in self._sums.names() if name in there)

    def missing(self, chunks: list[range], *, num_images: int, suffixes: Sequence[str]) -> list[range]:
        """The chunks that have an image below ``num_images`` of which not all files are whole."""
        whole = self.whole()

        def is_whole(chunk: range) -> bool:
            return all(whole.has(i, end) for i in chunk if i < num_images for end in suffixes)

        return [chunk for chunk in chunks if not is_whole(chunk)]

    def read(self, name: str) -> bytes:
        """The file ``name``, from the folder or a tar. Raises DataError when it is not there."""
        try:
            with naming(str(self._path / name)):
                return BOUNDS.read(self._path / name)
        except DataError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            return self._tars.read(name)

    def faults(self, num_images: int, *, suffixes: Sequence[str], latents: bool) -> list[str]:
        """One sentence for each file of the images 0..n-1 that is missing or was changed, and for each foreign one.

        ``suffixes``: which files each image is to have; ``latents``: whether those that are there are looked at.
        """
        known, there = self._sums.names(), self.there()
        there = there if latents else ImageNames(name for name in there if not name.endswith(LATENT))
        indices = range(min(num_images, len(there) + _MOST_MISSING))

        def names() -> Iterator[str]:
            return (image_name(index, suffix) for index in indices for suffix in suffixes)

        wrong = find_faults(names, sums=self._sums.lines(), there=there, read=self.read)
        unknown = {name for name in there if index_of(name) is None or name not in known}
        foreign = sorted(name for name in unknown if index_of(name, *suffixes) not in indices)
        return wrong + [f"{name} does not belong to these samples" for name in foreign]
