"""Which class has which index: the order of class folders, and files that name the classes in order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..storage import decode_text, read_text
from .kinds import RULES

CLASSES = "classes.txt"
_NUMBER = re.compile(r"[0-9]+")
_NUMBERED = re.compile(r"([0-9]{1,18})[\s,]+(\S.*)")  # a line "1 cat", as CUB and AwA have them
_SHOWN = 8  # classes that a remark names

_HINT = "Write one class folder a line, in the order of the indices."


class ClassNames(NamedTuple):
    """The names of all classes in the order of their indices, and where that is said."""

    names: tuple[str, ...]
    place: str


def order_folders(folders: Iterable[str], *, rules: int = RULES) -> list[str]:
    """Class folders in the order of their indices: as numbers where all are, else as text."""
    found = set(folders)
    if rules > 1 and all(_NUMBER.fullmatch(folder) for folder in found):
        return sorted(found, key=_as_number)
    return sorted(found)


def _as_number(folder: str) -> tuple[int, str, str]:
    """Orders digits as the numbers they are; Python makes no number of thousands of them, which a zip may hold."""
    digits = folder.lstrip("0")
    return len(digits), digits, folder


def read_class_names(path: Path) -> ClassNames:
    """The file of --class-names: one name a line, as it is or behind its number. Raises DataError."""
    names = _parse(read_text(path, kind=DataError), place=str(path))
    if not names:
        raise DataError(f"{path} names no class", hint=_HINT)
    return ClassNames(names, str(path))


def names_within(data: bytes, folders: Collection[str], *, place: str) -> ClassNames | None:
    """What a ``classes.txt`` among the data says; None where it is not about these folders."""
    names = _parse(decode_text(data, name=place, kind=DataError), place=place)
    known = {_composed(name) for name in names}
    return ClassNames(names, place) if any(_composed(folder) in known for folder in folders) else None


def positions(folders: Iterable[str], named: ClassNames) -> dict[str, int]:
    """Class folder -> index in ``named``. Raises DataError for a folder that is not named."""
    exact = {name: index for index, name in enumerate(named.names)}
    composed = {_composed(name): index for name, index in exact.items()}
    found = {}
    for folder in folders:
        index = exact.get(folder, composed.get(_composed(folder)))
        if index is None:
            raise DataError(f"{named.place} does not name the class folder {folder}", hint=_HINT)
        found[folder] = index
    return found


def describe_classes(classes: list[str]) -> str:
    """``2 classes: 0 cat, 1 dog``; of many, the first and the last. A name that is its own index is told once."""
    told = [name if name == str(index) else f"{index} {name}" for index, name in enumerate(classes)]
    if len(told) > _SHOWN + 1:
        told = [*told[:_SHOWN], "…", told[-1]]
    return f"{len(classes)} {'class' if len(classes) == 1 else 'classes'}: {', '.join(told)}"


def are_other(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two records of a data set's classes are of others: of another number, or of other names.

    Classes that are their own indices, as those of samples are, may have any name.
    """
    if len(ours) != len(theirs):
        return True
    numbers = [str(index) for index in range(len(ours))]
    return numbers not in (list(ours), list(theirs)) and list(ours) != list(theirs)


def check_folders(labels: Mapping[str, int], named: ClassNames | None, *, path: Path) -> None:
    """Check that the numbers in shards' .cls are the indices that the same class folders would have.

    ``labels``: folder in the members' names -> its class. Raises DataError for the first that differs.
    """
    count = max(labels.values()) + 1
    if named is not None:
        known = {_composed(name) for name in named.names}
        labels = {folder: label for folder, label in labels.items() if _composed(folder) in known}
        expected, place = positions(labels, named), named.place
    elif len(labels) == count == len(set(labels.values())):
        expected = {folder: index for index, folder in enumerate(order_folders(labels))}
        place = "the order of class folders"
    else:
        return  # a part of the classes, or folders that are no classes
    differing = [folder for folder in expected if expected[folder] != labels[folder]]
    if differing:
        wrong = min(differing, key=labels.__getitem__)
        raise DataError(
            f"{path}: folder {wrong} has class {labels[wrong]} in .cls, but {expected[wrong]} by {place}",
            hint="Name the classes in the order of .cls with --class-names.",
        )


def _parse(text: str, *, place: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        pairs = sorted((int(match[1]), match[2].strip()) for match in numbered if match)
        numbers = [number for number, _ in pairs]
        if numbers == list(range(numbers[0], numbers[0] + len(pairs))) and numbers[0] in (0, 1):
            lines = [name for _, name in pairs]
    seen: set[str] = set()
    for name in lines:
        if name in seen:
            raise DataError(f"{place} names {name} twice")
        seen.add(name)
    return tuple(lines)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
