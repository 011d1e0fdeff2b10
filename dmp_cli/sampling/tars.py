"""Samples that are kept in tar files instead of single files: a webdataset of ``NNNNNN.png`` and its class or caption,
and its latent where that is kept.

A tar holds one group of ``GROUP`` consecutive images: group k begins with image k * GROUP.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from ..data import BOUNDS, GROUP, IMAGE, LATENT, TarHeaders, image_name, index_of, naming, tars_in
from ..errors import DataError
from ..storage import open_regular, staged_file
from .planned_notes import PlannedNotes
from .tar_places import Places


class SampleTars:
    """The tars in one folder of samples. An image is a single file until its group is complete, then in a tar."""

    def __init__(
        self, path: Path, *, plan: Path, lock: Path, suffixes: Callable[[], Sequence[str]] = lambda: (IMAGE,)
    ) -> None:
        """``plan`` is the folder's plan.jsonl; a tar is written only while the file ``lock`` is locked.

        ``suffixes`` says which files each image has.
        """
        self.path, self._notes, self._lock, self._suffixes = path, PlannedNotes(plan, each=GROUP), lock, suffixes
        self._listed: dict[Path, tuple[tuple[int, int], Places]] = {}  # tar -> its (time, size) when listed, and images

    def paths(self) -> list[Path]:
        """The tars that are there, in the order of their images."""
        return tars_in(self.path)

    def names(self) -> Iterator[str]:
        """Names of the images and latents in all tars. Raises DataError for a tar that cannot be read."""
        for path in self.paths():
            yield from self._places(path)

    def read(self, name: str) -> bytes:
        """The file ``name`` of an image. Raises DataError when it is in no tar."""
        path = self._tar_of((index_of(name) or 0) // GROUP)
        place = self._places(path).get(name)
        if place is None:
            raise DataError(f"there is no {name} in {path}")
        with naming(f"{path}/{name}"), open_regular(path) as file:
            BOUNDS.check_size(place[1])
            file.seek(place[0])  # by offset: tarfile would search the tar from its beginning for every image
            return file.read(place[1])

    def pack(self, indices: Iterable[int], *, count: int) -> None:
        """Put the groups of the images ``indices`` into tars, where all images of a group below ``count`` are there.

        A tar appears whole or not at all; until it has appeared, its images stay single files. Any process may call
        this at any time.
        """
        for group in sorted({index // GROUP for index in indices}):
            members = range(group * GROUP, min((group + 1) * GROUP, count))
            packed = self._tar_of(group).exists()
            there = (any if packed else all)(path.exists() for path in self._singles(members))
            if there:
                with FileLock(self._lock):
                    self._pack(group, members)

    def _pack(self, group: int, members: Sequence[int]) -> None:
        packed = self._places(self._tar_of(group)) if self._tar_of(group).exists() else Places((), group=group)
        single = [path for path in self._singles(members) if path.exists()]
        if not single or not all(path.exists() or path.name in packed for path in self._singles(members)):
            return
        # Images in the tar beyond those that were asked for this time stay in it.
        members = sorted({*members, *(self._index_of(name, group) for name in packed)})
        notes = self._notes.of(group)
        with staged_file(self._tar_of(group)) as partial, tarfile.open(partial, "w") as archive:
            for index in members:
                for path in self._singles([index]):
                    _add(archive, path.name, path.read_bytes() if path.exists() else self.read(path.name))
                for suffix, text in notes.get(index, {}).items():
                    _add(archive, f"{index:06d}.{suffix}", text.encode())
        for path in single:
            path.unlink(missing_ok=True)

    def _index_of(self, name: str, group: int) -> int:
        """The index of an image in the tar of ``group``. Raises DataError for what no tar of ours holds."""
        index = index_of(name)
        if index is None or index // GROUP != group:
            path = self._tar_of(group)
            raise DataError(
                f"{path} holds {name}, which is not of these samples",
                hint="Remove the tar and run again: its images are drawn anew.",
            )
        return index

    def _places(self, path: Path) -> Places:
        """The images in a tar. Raises DataError for a tar that cannot be read."""
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if self._listed.get(path, (None,))[0] != stamp:
                with TarHeaders(path) as headers:
                    images = [member for member in headers if member.isreg() and member.name.endswith((IMAGE, LATENT))]
                where = ((member.name, member.offset_data, member.size) for member in images)
                self._listed[path] = stamp, Places(where, group=_group_of(path))
            return self._listed[path][1]
        except (OSError, tarfile.TarError) as error:
            raise DataError(
                f"cannot read {path}: {error}", hint="Remove it and run again: its images are drawn anew."
            ) from error

    def _singles(self, members: Iterable[int]) -> Iterator[Path]:
        """Where the files of the images ``members`` are while they are single files."""
        suffixes = self._suffixes()
        return (self.path / image_name(index, suffix) for index in members for suffix in suffixes)

    def _tar_of(self, group: int) -> Path:
        return self.path / f"samples-{group:05d}.tar"


def _group_of(path: Path) -> int:
    """The group that a tar is of, by its name."""
    return int(path.stem.rpartition("-")[2])


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # without time and owner, so that the same images give the same tar
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))
