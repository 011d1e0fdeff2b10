"""Captions of a folder or zip of images: lines of ``metadata.jsonl``, or a ``NAME.txt`` beside each image.

The first is the habit of Hugging Face's image folders, the second that of kohya's trainers; where both are, a line
wins.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import DataError
from .packed_strings import PackedStrings

METADATA = "metadata.jsonl"
BESIDE = ".txt"
_KEYS = ("text", "caption")  # of a line; the first found counts
_SHOWN = 3

Read = Callable[[str], bytes]


class Captions:
    """The captions of n images, by their indices.

    ``present``: (n,) bool, whether image i has one; ``signature``: what of them belongs in a data fingerprint, empty
    where there are none. Lines are kept in memory, files beside images are read when asked for.
    """

    def __init__(self, names: Sequence[str], *, notes: Mapping[str, int], place: str, read: Read) -> None:
        """``names`` of the images and ``notes`` (name -> bytes) of what else was listed, relative to ``place``."""
        self._read, self._place = read, place
        lines: dict[str, str] = {}
        signature = b""
        if METADATA in notes:
            content = read(METADATA)
            lines = _parse(content, place=f"{place}/{METADATA}", names=set(names))
            signature = hashlib.sha256(content).digest()
        beside = [_beside(name) if _beside(name) in notes and name not in lines else "" for name in names]
        self._lines = PackedStrings(lines.get(name, "") for name in names) if lines else None
        self._files = PackedStrings(beside) if any(beside) else None
        self._in_line = np.array([name in lines for name in names], bool)
        self.present = self._in_line | np.array([bool(file) for file in beside], bool)  # (n,)
        self.signature = signature + b"".join(
            f"{file}\0{notes[file]}\n".encode("utf-8", "replace") for file in beside if file
        )

    def text(self, index: int) -> str:
        """The caption of image ``index``, stripped. Raises DataError when its file cannot be read as text."""
        if self._in_line[index]:
            assert self._lines is not None
            return self._lines[index]
        assert self._files is not None
        file = self._files[index]
        try:
            return self._read(file).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{self._place}/{file} is not UTF-8 text: {error}") from error


def _beside(name: str) -> str:
    return name.rpartition(".")[0] + BESIDE


def _parse(content: bytes, *, place: str, names: set[str]) -> dict[str, str]:
    """Image name -> caption. Raises DataError that names the line."""
    found: dict[str, str] = {}
    try:
        rows = content.decode("utf-8-sig").split("\n")  # splitlines() also cuts at letters that JSON strings may hold
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 text: {error}") from error
    for number, row in enumerate(rows, start=1):
        if row.strip():
            name, text = _parse_line(row, place=f"{place}, line {number}")
            if name not in names:
                raise DataError(f"{place}, line {number}: there is no image {name}")
            if name in found:
                raise DataError(f"{place}, line {number}: {name} has a caption already")
            found[name] = text
    return found


def _parse_line(row: str, *, place: str) -> tuple[str, str]:
    try:
        line = json.loads(row)
    except ValueError as error:
        raise DataError(f"{place} is not valid JSON: {error}") from error
    line = line if isinstance(line, dict) else {}
    text = next((line[key] for key in _KEYS if line.get(key) is not None), None)
    if not isinstance(text, str) or not isinstance(line.get("file_name"), str):
        raise DataError(
            f"{place} lacks file_name or text", hint='A line is {"file_name": "1.jpg", "text": "a red fox"}.'
        )
    return posixpath.normpath(line["file_name"]), text.strip()
