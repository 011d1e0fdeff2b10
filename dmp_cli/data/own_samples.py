"""A data set of samples: a folder or zip that ``dmp sample`` has filled, with or without tars.

Its images are the numbered ones, in the order of their numbers; classes and captions come from its own records. So the
same samples are the same data set, whether they lie in files of their own or in tars. n images.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..storage import open_regular
from .bounds import Bounds
from .classes import ClassNames
from .containers import Archive, Entry, Folder, is_ignored
from .decoding import naming
from .kinds import is_read
from .packed_strings import PackedStrings
from .sample_files import ABOUT, GRID, GROUP, IMAGE, PLAN, RECORD_SUMS, image_name, index_of, is_tar_of_samples
from .sample_records import SampleNotes, SampleRecords
from .source import ImageSource, Stamp
from .tars import TarHeaders
from .zips import is_zip, open_zip

_ALONE = -1  # in place of a tar's number: the image is a file of its own
_RULES = 3  # the first by which they are listed like this


class OwnSamples(ImageSource):
    """The images of one folder or zip of samples. They are shuffled in the groups in which tars hold them."""

    def __init__(
        self, container: Folder | Archive, prefix: str, *, places: np.ndarray, tars: list[str], notes: SampleNotes
    ) -> None:
        self.path, self.rules, self.passed_over = container.path, _RULES, {}
        self.labels, self.classes = notes.labels, notes.classes
        count = len(notes.labels)
        self.spans = np.array([*range(0, count, GROUP), count], np.int64)
        self._container, self._prefix, self._tars, self._places = container, prefix, tars, places
        self._prompts = None if notes.prompts is None else PackedStrings(notes.prompts)
        self.fingerprint = hashlib.sha256(b"".join(self._rows(notes))).hexdigest()

    def _rows(self, notes: SampleNotes) -> Iterator[bytes]:
        """What the fingerprint is of: nothing that differs between single files and tars."""
        yield f"samples of {len(notes.classes)} classes\n".encode()
        for index, (label, size) in enumerate(zip(notes.labels, self._places[:, 2], strict=True)):
            prompt = "" if notes.prompts is None else notes.prompts[index]
            yield f"{image_name(index)}\0{size}\0{label}\0{prompt}\n".encode("utf-8", "surrogateescape")

    @property
    def captioned(self) -> np.ndarray:
        return np.full(len(self), self._prompts is not None)

    def captions(self, index: int) -> list[str]:
        if self._prompts is None:
            raise DataError(f"{self.name(index)} has no caption")
        return [self._prompts[index]]

    def name(self, index: int) -> str:
        tar = int(self._places[index, 0])
        folder = self._prefix if tar == _ALONE else f"{self._prefix}{self._tars[tar]}/"
        return f"{self.path}/{folder}{image_name(index)}".encode("utf-8", "backslashreplace").decode()

    def read(self, index: int) -> bytes:
        with naming(self.name(index)):
            return self._bytes(image_name(index), self._places[index])

    def stamp(self, index: int) -> Stamp:
        tar, _, size, mark = (int(value) for value in self._places[index])
        if tar == _ALONE and self._container.marks_are_sums:
            return Stamp(size, 0, mark)
        return Stamp(size, mark)

    def _bytes(self, name: str, place: np.ndarray) -> bytes:
        tar, offset, size, _ = (int(value) for value in place)
        if tar == _ALONE:
            return self._container.read(self._prefix + name)
        self._container.bounds.check_size(size)
        with open_regular(self.path / self._tars[tar]) as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise ValueError("the tar is shorter than when it was listed")
        return data


def find_own_samples(path: Path, *, named: ClassNames | None, bounds: Bounds) -> OwnSamples | None:
    """List the samples in a folder or zip that ``dmp sample`` has filled; None: it has not.

    ``named``: names of the classes, for those in its records.

    Raises:
        DataError: samples are missing, other images lie among them, its records are missing or damaged, or ``named``
            names another number of classes.
    """
    with naming(str(path)):
        container, prefix = _open(path, bounds)
        if container is None:
            return None
        entries = {e.name.removeprefix(prefix): e for e in container.entries() if e.name.startswith(prefix)}
    entries = {name: entry for name, entry in entries.items() if "/" not in name and not is_ignored(name)}
    records = SampleRecords(container, prefix, entries)
    about = records.about()
    if about is None:
        return None
    count = int(about["num_images"])
    found = _find_files(container, entries)
    _check_whole(path, found, entries, count)
    notes = records.notes(about, count)
    if named is not None and notes.classes:
        if len(named.names) != len(notes.classes):
            raise DataError(f"{named.place} names {len(named.names)} classes, but {path} has {len(notes.classes)}")
        notes = notes._replace(classes=list(named.names))
    places = np.array([found.images[index] for index in range(count)], np.int64).reshape(count, 4)
    return OwnSamples(container, prefix, places=places, tars=found.tars, notes=notes)


def _open(path: Path, bounds: Bounds) -> tuple[Folder | Archive | None, str]:
    """What holds the samples, and the folder in it around them, with its "/"; None: nothing says that it does."""
    marks = (ABOUT, RECORD_SUMS)
    if path.is_dir():
        if not any((path / name).exists() for name in marks):
            return None, ""
        return Folder(path, wanted=_is_wanted, bounds=bounds, levels=1), ""
    if not is_zip(path):
        return None, ""
    with open_zip(path) as archive:
        names = [name.replace("\\", "/") for name in archive.namelist()]
    for name in names:
        prefix, _, file = name.rpartition("/")
        prefix += "/" if prefix else ""
        if file in marks and all(other.startswith((prefix, "__MACOSX/")) for other in names):
            return Archive(path, slashes=True, bounds=bounds), prefix
    return None, ""


def _is_wanted(name: str) -> bool:
    return name in (ABOUT, PLAN, RECORD_SUMS) or is_tar_of_samples(name) or (is_read(name) and not is_ignored(name))


class _Files(NamedTuple):
    """Where the images are: index -> tar, offset, size, mark."""

    images: dict[int, tuple[int, int, int, int]]
    tars: list[str]


def _find_files(container: Folder | Archive, entries: dict[str, Entry]) -> _Files:
    """The images in tars, and those beside them; of an image in both, as a kill may leave it, the one beside."""
    tars = sorted(name for name in entries if is_tar_of_samples(name)) if isinstance(container, Folder) else []
    found = _Files({}, tars)
    for number, name in enumerate(tars):
        place = container.path / name
        try:
            with naming(str(place)), TarHeaders(place) as headers:
                for member in headers:
                    index = index_of(member.name, IMAGE) if member.isreg() and not member.issparse() else None
                    if index is not None:
                        found.images[index] = number, member.offset_data, member.size, entries[name].mark
        except DataError as error:
            raise DataError(error.message, hint="Remove it and run dmp sample again: its images are drawn anew.") from (
                error if not isinstance(error.__cause__, tarfile.TarError) else error.__cause__
            )
    for name, entry in entries.items():
        index = index_of(name, IMAGE)
        if index is not None:
            found.images[index] = _ALONE, 0, entry.size, entry.mark
    return found


def _check_whole(path: Path, found: _Files, entries: dict[str, Entry], count: int) -> None:
    """Raise DataError where a sample is missing, or an image is none of the samples."""
    if not count:
        raise DataError(f"no images in {path}: its {ABOUT} says that it holds none")
    there = sum(1 for index in found.images if index < count)
    if there < count:
        missing = next(index for index in range(count) if index not in found.images)
        raise DataError(
            f"{path} holds {there:,} of its {count:,} samples: {image_name(missing)} is missing",
            hint="Run the dmp sample command of this folder again until it ends.",
        )
    known = {image_name(index) for index in range(count)} if len(entries) > 1 else set()
    foreign = sorted(name for name in entries if is_read(name) and name != GRID and name not in known)
    if foreign:
        raise DataError(
            f"{path} holds images that are none of its {count:,} samples, such as {foreign[0]}",
            hint="Move them to another folder.",
        )
