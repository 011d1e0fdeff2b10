"""The files of a folder or zip that matter to a data set, sorted by what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..runtime import counting
from .captions import is_note
from .containers import Archive, Entry, Folder, is_ignored
from .kinds import BEFORE_SAMPLES, is_passed_over, is_read
from .sample_files import ABOUT, GRID
from .sample_records import is_record


class Listing(NamedTuple):
    """The files of a container that matter. Names are relative to the container."""

    images: dict[str, tuple[int, int]]  # name -> size, mark
    folders: set[str]
    notes: dict[str, int]  # name of a file that may hold captions or classes -> size
    passed_over: list[str]  # images of kinds that are not read
    previews: list[str]  # pictures of dmp sample in class folders, which are no images of the data

    def below(self, prefix: str) -> Listing:
        """The images and folders below the folder ``prefix``, by their names there."""
        return self._replace(
            images={name.removeprefix(prefix): entry for name, entry in self.images.items()},
            folders={name.removeprefix(prefix) for name in self.folders if name.startswith(prefix)},
        )


def list_files(container: Folder | Archive, rules: int) -> Listing:
    """What ``container`` holds, by the rules of that version; names are relative to it."""
    found = Listing({}, set(), {}, [], [])
    made: list[str] = []  # folders with a samples.json
    last, passes = "", False  # the files of a folder mostly follow each other
    for name, size, mark in _counted(container):
        folder, _, file = name.rpartition("/")
        if folder != last:
            last, passes = folder, any(is_ignored(part) for part in folder.split("/"))
            if folder and not passes:
                found.folders.add(folder)
        if passes or is_ignored(file):
            continue
        if is_read(file, rules):
            found.images[name] = size, mark
        elif file == ABOUT and rules > BEFORE_SAMPLES:
            made.append(folder)
        elif is_note(file):
            found.notes[name] = size
        elif is_passed_over(file, rules):
            found.passed_over.append(name)
    for folder in made:
        if (preview := f"{folder}/{GRID}") in found.images and is_record(container, f"{folder}/{ABOUT}"):
            found.previews.append(preview)
            del found.images[preview]
    return found


def _counted(container: Folder | Archive) -> Iterator[Entry]:
    """The entries of a container; whoever watches sees how many there are so far."""
    with counting(f"list {container.path.name}") as count:
        for number, entry in enumerate(container.entries(), start=1):
            count(number)
            yield entry


def is_wanted(name: str, rules: int) -> bool:
    """Whether a file of this name is looked at."""
    if is_ignored(name):
        return False
    record = rules > BEFORE_SAMPLES and name == ABOUT
    return record or is_read(name, rules) or is_note(name) or is_passed_over(name, rules)
