"""Finding images and their captions in a folder, a zip or shards; flat, or with one sub-folder per class."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .bounds import BOUNDS, Bounds
from .captions import Captions
from .classes import CLASSES, ClassNames, names_within, read_class_names
from .containers import Archive, Folder, open_container
from .decoding import naming
from .elsewhere import Elsewhere, find_elsewhere
from .folder_table import FolderTable, make_table
from .kinds import BEFORE_SAMPLES, RULES, count_kinds, describe_kinds, read_suffixes
from .listing import Listing, is_wanted, list_files
from .own_samples import find_own_samples
from .shard_paths import find_shards
from .shards import ShardImages
from .source import ImageSource, Stamp

_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
_ELSEWHERE = Elsewhere()
_LAYOUT = "Images lie either directly in the folder (or zip), or in one sub-folder per class."


class FolderImages(ImageSource):
    """The images of one folder or zip, flat or with one sub-folder per class. A zip of a folder gives the same images.

    Each worker process opens a zip when it reads from it first.
    """

    def __init__(self, container: Folder | Archive, table: FolderTable) -> None:
        self.container, self.table, self.path = container, table, container.path
        self.classes, self.labels = table.classes, table.labels
        self.rules, self.passed_over, self.fingerprint = table.rules, table.passed_over, table.fingerprint
        read = partial(_read_note, container)
        self._captions = Captions(table.captions, place=str(self.path), read=read, prefix=table.prefix)

    @property
    def captioned(self) -> np.ndarray:
        return self._captions.present

    def captions(self, index: int) -> list[str]:
        if not self._captions.present[index]:
            raise DataError(f"{self.name(index)} has no caption")
        return self._captions.texts(index)

    def name(self, index: int) -> str:
        return f"{self.path}/{self._relative(index)}".encode("utf-8", "backslashreplace").decode()

    def read(self, index: int) -> bytes:
        with naming(self.name(index)):
            return self.container.read(self._relative(index))

    def stamp(self, index: int) -> Stamp:
        size, mark = (int(value) for value in self.table.stamps[index])
        return Stamp(size, 0, mark) if self.container.marks_are_sums else Stamp(size, mark)

    def _relative(self, index: int) -> str:
        return self.table.prefix + self.table.names[index]


def _read_note(container: Folder | Archive, name: str) -> bytes:
    with naming(f"{container.path}/{name}"):
        return container.read(name)


def find_images(
    path: str | Path,
    *,
    rules: int = RULES,
    class_names: Path | None = None,
    recorded: tuple[str, ...] | None = None,
    bounds: Bounds = BOUNDS,
    elsewhere: Elsewhere = _ELSEWHERE,
) -> ImageSource:
    """List the images of a folder or .zip, flat or with one sub-folder per class.

    Class folders that are all numbers are in the order of the numbers, others in that of their names; a ``classes.txt``
    beside them, or the file ``class_names``, gives another order. ``path`` may also name webdataset shards: a .tar, a
    folder of them, or a pattern such as ``train-{000..146}.tar``; see :mod:`shards`. Dotfiles, ``*.partial``,
    ``__MACOSX`` and files that are no images are passed over; images of kinds that are not read are counted. So is a
    single folder around the class folders. A folder or zip that ``dmp sample`` has filled is listed by its own records;
    see :mod:`own_samples`.

    Args:
        rules: the version of the rules to list by, see :mod:`kinds`.
        recorded: the classes as a run that goes on has recorded them; those of other data are passed over.
        bounds: how large a file may be, and whether links may lead out of the folder.
        elsewhere: how a table, as ``hf:user/name:split``, or shards behind an address are read.

    Raises:
        DataError: ``path`` is missing, unreadable or empty; images lie both directly in it and in sub-folders, or
            deeper than that; a class folder is empty; the sub-folders are ``train`` and ``test``; a link leads out of
            it; or the names of the classes do not fit.
    """
    path = Path(path)
    if class_names is not None and rules < 2:
        raise DataError(f"--class-names {class_names}: this run was begun before classes could be named")
    named = None if class_names is None else read_class_names(class_names)
    how: dict[str, Any] = {"rules": rules, "named": named, "recorded": recorded, "bounds": bounds}
    if (found := find_elsewhere(path, elsewhere, **how)) is not None:
        return found
    if rules > BEFORE_SAMPLES:
        told = named or (None if recorded is None else ClassNames(recorded, "the run's record"))
        samples = find_own_samples(path, named=told, bounds=bounds)
        if samples is not None:
            return samples
    with naming(str(path)):  # which may be longer than a name can be
        shards = find_shards(path, rules=rules, bounds=bounds)
    if shards:
        named = named or _beside(path, recorded, bounds)
        return ShardImages(path, shards, rules=min(rules, BEFORE_SAMPLES), named=named, bounds=bounds)
    return _find_single(path, rules=rules, named=named, recorded=recorded, bounds=bounds)


def _find_single(
    path: Path, *, rules: int, named: ClassNames | None, recorded: tuple[str, ...] | None, bounds: Bounds
) -> FolderImages:
    """The images that are files of their own in a folder or zip. Arguments and errors as of :func:`find_images`."""
    with naming(str(path)):
        container = open_container(path, wanted=lambda name: is_wanted(name, rules), slashes=rules > 1, bounds=bounds)
        found = list_files(container, rules)
    if not found.images:
        kinds = count_kinds(found.passed_over)
        more = f"; {describe_kinds(kinds)}" if kinds else ""
        known = f"{_LAYOUT} Known suffixes: {' '.join(sorted(read_suffixes(rules)))}."
        raise DataError(f"no images in {path}{more}", hint=known)
    prefix = _wrapping(list(found.images))
    found = found.below(prefix)
    _check_layout(f"{path}/{prefix}".rstrip("/"), list(found.images), found.folders)
    named = named or _named_within(container, found, prefix, recorded, rules)
    rules = rules if found.previews else min(rules, BEFORE_SAMPLES)
    read = partial(_read_note, container)
    table = make_table(found, prefix=prefix, named=named, rules=rules, place=str(container.path), read=read)
    return FolderImages(container, table)


def _named_within(
    container: Folder | Archive, found: Listing, prefix: str, recorded: tuple[str, ...] | None, rules: int
) -> ClassNames | None:
    """The classes as recorded, or as a file beside the class folders gives them; None: neither."""
    folders = {name.rpartition("/")[0] for name in found.images} - {""}
    if recorded is not None:
        return ClassNames(recorded, "the run's record") if folders <= set(recorded) else None
    if rules < 2 or not folders or prefix + CLASSES not in found.notes:
        return None
    place = f"{container.path}/{prefix}{CLASSES}"
    with naming(place):
        return names_within(container.read(prefix + CLASSES), folders, place=place)


def _beside(path: Path, recorded: tuple[str, ...] | None, bounds: Bounds) -> ClassNames | None:
    """The classes of shards as recorded, or as a file in their folder gives them; None: neither."""
    if recorded is not None:
        return None if recorded == tuple(map(str, range(len(recorded)))) else ClassNames(recorded, "the run's record")
    file = (path if path.is_dir() else path.parent) / CLASSES
    bounds.check_link(file, folder=file.parent)
    return read_class_names(file) if file.exists() else None


def _wrapping(names: list[str]) -> str:
    """The single folder, with its "/", around all class folders, which zips often have; else an empty string."""
    prefix = ""
    while True:
        rest = [name.removeprefix(prefix) for name in names]
        tops = {name.partition("/")[0] for name in rest}
        if len(tops) > 1 or any(name.count("/") < 2 for name in rest):
            return prefix
        prefix += f"{tops.pop()}/"


def _check_layout(path: str, names: list[str], folders: set[str]) -> None:
    flat = [name for name in names if "/" not in name]
    deep = [name for name in names if name.count("/") > 1]
    tops = sorted({name.partition("/")[0] for name in names if "/" in name})
    if not flat and len(tops) > 1 and all(top.lower() in _SPLITS for top in tops):
        part = f"{path}/{max(tops, key=lambda top: top.lower().startswith('train'))}"
        hint = f"Give one of them alone, as {part}." if os.path.isdir(part) else "Make a zip of one of them alone."
        raise DataError(f"{path} holds {' and '.join(tops)}, not classes", hint=hint)
    if flat and tops:
        inner = next(name for name in names if "/" in name)
        raise DataError(f"{path} holds images both directly ({flat[0]}) and in sub-folders ({inner})", hint=_LAYOUT)
    if deep:
        raise DataError(f"images too deep in {path}: {deep[0]}", hint=f"{_LAYOUT} Give the folder right above them.")
    empty = sorted({name for name in folders if "/" not in name} - set(tops)) if tops else []
    if empty:
        raise DataError(f"class folder {path}/{empty[0]} holds no images", hint="Remove it: it would count as a class.")
