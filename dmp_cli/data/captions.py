"""Captions for a folder or zip of images: lines of ``metadata.jsonl``, or a file ``NAME.txt`` beside each image.

Hugging Face's image folders use the first form, kohya's trainers the second. For an image with both, the line counts.
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
_KEYS = ("text", "caption")  # fields of a line that may hold the caption; the first found counts
_SHOWN = 3

Read = Callable[[str], bytes]


class Captions:
    """The captions of n images, by index.

    ``present``: (n,) bool, whether image i has a caption; ``signature``: the bytes that stand for all captions in the
    fingerprint of the data, empty where there are none. Lines are kept in memory; files beside images are read on use.
    """

    def __init__(self, names: Sequence[str], *, notes: Mapping[str, int], place: str, read: Read) -> None:
        """``names``: of the images; ``notes``: sizes in bytes of possible caption files, by name; all in ``place``."""
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
        """The caption of image ``index``, without white space around it. Raises DataError when its file is not text."""
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
    """Image name -> caption. Raises DataError, which names the line."""
    found: dict[str, str] = {}
    try:
        rows = content.decode("utf-8-sig").split("\n")  # splitlines() also splits at characters that JSON may contain
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
            f"{place} lacks file_name or text", hint='Write lines such as {"file_name": "1.jpg", "text": "a red fox"}.'
        )
    return posixpath.normpath(line["file_name"]), text.strip()
