"""Where the files of a folder of samples lie: in files of their own, in tars, or in a zip. n images."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..storage import open_regular
from .bounds import Bounds
from .containers import Archive, Entry, Folder, is_ignored
from .decoding import naming
from .kinds import is_read
from .sample_files import ABOUT, GRID, IMAGE, LATENT, PLAN, RECORD_SUMS, image_name, index_of, is_tar_of_samples
from .source import Stamp
from .tars import TarHeaders
from .zips import is_zip, open_zip

_ALONE = -1  # in place of a tar's number: a file of its own
_Found = dict[str, dict[int, tuple[int, int, int, int]]]  # suffix -> index -> tar, offset, size, mark


class SamplePlaces:
    """The files of the images 0..n-1 in one folder or zip, by index and suffix; small to send to worker processes."""

    def __init__(
        self, container: Folder | Archive, prefix: str, tars: list[str], tables: Mapping[str, np.ndarray]
    ) -> None:
        self.path = container.path
        self._container, self._prefix, self._tars, self._tables = container, prefix, tars, tables

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each image's file, (n,)."""
        return self._tables[IMAGE][:, 2]

    def name(self, index: int, suffix: str = IMAGE) -> str:
        """The path of a file, for messages; in a tar or zip it follows the path of that."""
        tar = int(self._tables[suffix][index, 0])
        folder = self._prefix if tar == _ALONE else f"{self._tars[tar]}/"
        return f"{self.path}/{folder}{image_name(index, suffix)}".encode("utf-8", "backslashreplace").decode()

    def read(self, index: int, suffix: str = IMAGE) -> bytes:
        """The bytes of a file. Raises DataError, which names it."""
        tar, offset, size, _ = (int(value) for value in self._tables[suffix][index])
        with naming(self.name(index, suffix)):
            if tar == _ALONE:
                return self._container.read(self._prefix + image_name(index, suffix))
            self._container.bounds.check_size(size)
            with open_regular(self.path / self._tars[tar]) as file:
                data = os.pread(file.fileno(), size, offset)
            if len(data) < size:
                raise ValueError("the tar is shorter than when it was listed")
            return data

    def stamp(self, index: int) -> Stamp:
        """What is known of an image's file without reading it."""
        tar, _, size, mark = (int(value) for value in self._tables[IMAGE][index])
        return Stamp(size, 0, mark) if tar == _ALONE and self._container.marks_are_sums else Stamp(size, mark)


def open_samples(path: Path, bounds: Bounds) -> tuple[Folder | Archive, str, dict[str, Entry]] | None:
    """What may hold samples, the folder in it around them, with its "/", and its files; None: it holds no record.

    Raises:
        DataError: it cannot be read.
    """
    with naming(str(path)):
        if path.is_dir():
            there = any((path / name).exists() for name in (ABOUT, RECORD_SUMS))
            prefix: str | None = "" if there else None
        else:
            prefix = _prefix_in_zip(path)
        if prefix is None:
            return None
        container: Folder | Archive
        if path.is_dir():
            container = Folder(path, wanted=_is_wanted, bounds=bounds, levels=1)
        else:
            container = Archive(path, slashes=True, bounds=bounds)
        inside = {e.name.removeprefix(prefix): e for e in container.entries() if e.name.startswith(prefix)}
    return container, prefix, {n: e for n, e in inside.items() if "/" not in n and not is_ignored(n)}


def _prefix_in_zip(path: Path) -> str | None:
    """The folder of a zip in which the records of samples lie, where all its files do; None: there is none."""
    if not is_zip(path):
        return None
    with open_zip(path) as archive:
        names = [name.replace("\\", "/") for name in archive.namelist()]
    for name in names:
        folder, slash, file = name.rpartition("/")
        prefix = folder + slash
        if file in (ABOUT, RECORD_SUMS) and all(other.startswith((prefix, "__MACOSX/")) for other in names):
            return prefix
    return None


def _is_wanted(name: str) -> bool:
    record = name in (ABOUT, PLAN, RECORD_SUMS) or is_tar_of_samples(name) or index_of(name) is not None
    return record or (is_read(name) and not is_ignored(name))


def find_places(
    container: Folder | Archive, prefix: str, entries: Mapping[str, Entry], *, count: int, suffixes: Sequence[str]
) -> SamplePlaces:
    """Where each file of the images 0..count-1 is; each image has one with each of ``suffixes``.

    Raises:
        DataError: one is missing, a tar is damaged, or there are images that are none of these.
    """
    if not count:
        raise DataError(f"no images in {container.path}: its {ABOUT} says that it holds none")
    tars = sorted(name for name in entries if is_tar_of_samples(name)) if isinstance(container, Folder) else []
    found = _in_tars(container, tars, entries)
    for name, entry in entries.items():  # of a file in both, as a kill may leave it, the one beside the tar
        for suffix in (IMAGE, LATENT):
            index = index_of(name, suffix)
            if index is not None:
                found[suffix][index] = _ALONE, 0, entry.size, entry.mark
    for suffix in suffixes:
        _check_whole(container.path, found[suffix], count, suffix)
    foreign = [name for name in entries if is_read(name) and name != GRID and not _is_below(count, index_of(name))]
    if foreign:
        raise DataError(
            f"{container.path} holds images that are none of its {count:,} samples, such as {min(foreign)}",
            hint="Move them to another folder.",
        )
    tables = {end: np.array([found[end][index] for index in range(count)], np.int64) for end in suffixes}
    return SamplePlaces(container, prefix, tars, tables)


def _is_below(count: int, index: int | None) -> bool:
    return index is not None and index < count


def _in_tars(container: Folder | Archive, tars: list[str], entries: Mapping[str, Entry]) -> _Found:
    found: _Found = {IMAGE: {}, LATENT: {}}
    for number, name in enumerate(tars):
        place = container.path / name
        try:
            with naming(str(place)), TarHeaders(place) as headers:
                for member in headers:
                    index = index_of(member.name) if member.isreg() and not member.issparse() else None
                    if index is not None:
                        suffix = IMAGE if member.name.endswith(IMAGE) else LATENT
                        found[suffix][index] = number, member.offset_data, member.size, entries[name].mark
        except DataError as error:
            hint = "Remove it and run dmp sample again: its images are drawn anew."
            raise DataError(
                error.message, hint=hint if isinstance(error.__cause__, tarfile.TarError) else None
            ) from error
    return found


def _check_whole(path: Path, found: Mapping[int, object], count: int, suffix: str) -> None:
    there = sum(1 for index in found if index < count)
    if there < count:
        missing = next(index for index in range(count) if index not in found)
        what = "samples" if suffix == IMAGE else "latents"
        raise DataError(
            f"{path} holds {there:,} of its {count:,} {what}: {image_name(missing, suffix)} is missing",
            hint="Run the dmp sample command of this folder again until it ends.",
        )
