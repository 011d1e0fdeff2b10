"""Captions for a folder or zip of images: lines of metadata files, or a file ``NAME.txt`` beside each image.

Hugging Face's image folders use the first form: a ``metadata.jsonl`` or ``metadata.csv`` in any folder, about the
images in and below it. Kohya's trainers use the second, as ``.txt`` or ``.caption``. For an image with both, the line
counts.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..storage import decode_text
from .bounds import BOUNDS
from .decoding import naming
from .kinds import RULES
from .metadata import COMMAS, JSON_LINES, parse_metadata
from .packed_strings import PackedStrings

_BESIDE = (".txt", ".caption")  # the first that is there counts

Read = Callable[[str], bytes]


class CaptionColumns(NamedTuple):
    """The captions of n images: lines in memory, or the files beside the images that hold them."""

    present: np.ndarray  # (n,) bool, whether image i has a caption
    ends: np.ndarray | None  # (n,): where the lines of image i end; None: there are none
    lines: PackedStrings | None
    files: PackedStrings | None  # n names of files, relative to the folder of the images; empty: there is none


class Captions:
    """The captions of images by index; ``columns``: of the images in the folder ``prefix`` of ``place``."""

    def __init__(self, columns: CaptionColumns, *, place: str, read: Read, prefix: str = "") -> None:
        self._columns, self._read, self._place, self._prefix = columns, read, place, prefix
        self.present = columns.present

    def texts(self, index: int) -> list[str]:
        """The captions of image ``index``, without white space around them. Raises DataError when a file is no text."""
        start, end = self._places(index)
        if self._columns.lines is not None and end > start:
            return [self._columns.lines[place] for place in range(start, end)]
        assert self._columns.files is not None
        file = self._prefix + self._columns.files[index]
        data, place = self._read(file), f"{self._place}/{file}"
        with naming(place):
            BOUNDS.check_note(len(data))
            return [decode_text(data, name=place, kind=DataError).strip()]

    def _places(self, index: int) -> tuple[int, int]:
        """Where the lines of image ``index`` begin and end."""
        ends = self._columns.ends
        if ends is None:
            return 0, 0
        return int(ends[index - 1]) if index else 0, int(ends[index])


def list_captions(
    names: Sequence[str], *, notes: Mapping[str, int], place: str, read: Read, prefix: str = "", rules: int = RULES
) -> tuple[CaptionColumns, bytes]:
    """The captions of the images ``names``, and the bytes that stand for them in the fingerprint of the data.

    Args:
        names: relative to the folder ``prefix`` of ``place``.
        notes: sizes in bytes of possible caption files, by name in ``place``.
        read: reads one of them.
    """
    found, signature = _read_lines(names, notes, place=place, read=read, prefix=prefix, rules=rules)
    files = {name.removeprefix(prefix): size for name, size in notes.items() if name.startswith(prefix)}
    table = _Beside(files, rules)
    beside = ["" if name in found else table.find(name) for name in names]
    counts = np.array([len(found.get(name, ())) for name in names], np.int64)  # (n,), of lines
    columns = CaptionColumns(
        present=(counts > 0) | np.array([bool(file) for file in beside], bool),
        ends=np.cumsum(counts) if found else None,
        lines=PackedStrings(text for name in names for text in found.get(name, ())) if found else None,
        files=PackedStrings(beside) if any(beside) else None,
    )
    rows = (f"{file}\0{files[file]}\n".encode("utf-8", "replace") for file in beside if file)
    return columns, signature + b"".join(rows)


def _read_lines(
    names: Sequence[str], notes: Mapping[str, int], *, place: str, read: Read, prefix: str, rules: int
) -> tuple[dict[str, list[str]], bytes]:
    """Image name -> captions, by the metadata files, outermost first; and the bytes that stand for them."""
    found: dict[str, list[str]] = {}
    signature, known = b"", _Names(names, loose=rules > 1)
    for file in _metadata_files(notes, prefix, rules):
        content, where, said = read(file), f"{place}/{file}", set()
        for number, written, texts in parse_metadata(content, place=where):
            name = known.find(posixpath.dirname(file), written, prefix)
            if name is None:
                raise DataError(f"{where}, line {number}: there is no image {posixpath.normpath(written)}")
            if name in said:
                raise DataError(f"{where}, line {number}: {name} has a caption already")
            said.add(name)
            if texts:  # of several files the innermost counts
                found[name] = texts
        signature += hashlib.sha256(content).digest()
    return found, signature


def is_note(name: str) -> bool:
    """Whether a file of this name may hold captions."""
    return name in (JSON_LINES, COMMAS) or os.path.splitext(name)[1].lower() in _BESIDE


def _metadata_files(notes: Mapping[str, int], prefix: str, rules: int) -> list[str]:
    if rules < 2:
        return [prefix + JSON_LINES] if prefix + JSON_LINES in notes else []
    found = [name for name in notes if posixpath.basename(name) in (JSON_LINES, COMMAS)]
    return sorted(found, key=lambda name: (name.count("/"), posixpath.dirname(name), name.endswith(JSON_LINES)))


class _Names:
    """Names of images, to be found as metadata files write them."""

    def __init__(self, names: Sequence[str], *, loose: bool) -> None:
        self._names, self._exact, self._loose = names, set(names), loose
        self._composed: dict[str, str] | None = None  # made when an exact name is missing for the first time

    def find(self, folder: str, written: str, prefix: str) -> str | None:
        """The image that a file in ``folder`` calls ``written``. ``loose``: with backslashes, in any Unicode form."""
        for spelling in dict.fromkeys((written, written.replace("\\", "/"))) if self._loose else (written,):
            name = posixpath.normpath(posixpath.join(folder, spelling)).removeprefix(prefix)
            if name in self._exact:
                return name
            if self._loose:
                if self._composed is None:
                    self._composed = _by_composed(self._names)
                if _composed(name) in self._composed:
                    return self._composed[_composed(name)]
        return None


class _Beside:
    """The caption files beside images, by the image's name without its suffix."""

    def __init__(self, files: Mapping[str, int], rules: int) -> None:
        self._rules, self._files = rules, files
        self._stems: dict[str, str] = {}
        for file in sorted(self._kept(), key=_preference, reverse=True):  # so that the best comes last
            self._stems[os.path.splitext(file)[0]] = file
        self._composed: dict[str, str] | None = None

    def _kept(self) -> Iterator[str]:
        for file in self._files:
            if posixpath.basename(file) not in (JSON_LINES, COMMAS) and (self._rules > 1 or file.endswith(_BESIDE[0])):
                yield file

    def find(self, name: str) -> str:
        """The caption file of the image ``name``; empty: it has none."""
        stem = name.rpartition(".")[0]
        if stem in self._stems or self._rules < 2:
            return self._stems.get(stem, "")
        if self._composed is None:
            self._composed = _by_composed(self._stems)
        return self._stems.get(self._composed.get(_composed(stem), ""), "")


def _preference(file: str) -> tuple[int, str]:
    """The smaller the better: ``.txt`` before ``.TXT`` before ``.caption``."""
    suffix = os.path.splitext(file)[1]
    return 2 * _BESIDE.index(suffix.lower()) + (suffix not in _BESIDE), file


def _by_composed(names: Iterable[str]) -> dict[str, str]:
    """Name in the composed form of Unicode (NFC) -> the name; without those that two names share."""
    found: dict[str, str] = {}
    shared = set()
    for name in names:
        key = _composed(name)
        if key in found:
            shared.add(key)
        found[key] = name
    return {key: name for key, name in found.items() if key not in shared}


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
