"""What a folder of ``dmp sample`` says of its images: how many there are, and the class or prompt of each.

``samples.json`` and ``plan.jsonl`` are read as files of strangers: held against their sums, and with all types checked.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import CodecRecord
from ..errors import DataError
from ..storage import check_types, decode_text, parse_json, parse_json_lines
from .about_types import check_about, is_ours
from .containers import Archive, Folder
from .decoding import naming
from .sample_files import ABOUT, PLAN, RECORD_SUMS, parse_record_sums

_AGAIN = "Run the dmp sample command of this folder again: it writes what is missing, and keeps its images."
_LATENTS = "float32"
_MOST_CLASSES = 1_000_000  # the names of all are kept
_CLASS_COUNTS = ("num_classes", "num_class_embeds")  # what families call it in their sizes


class SampleNotes(NamedTuple):
    """What the records say of n images."""

    labels: np.ndarray  # (n,) int64; zeros where there are no classes
    classes: list[str]  # names of all classes of the backbone, also of those that were not drawn; empty: none
    prompts: list[str] | None  # n captions; None: the backbone reads no text
    codec: CodecRecord | None = None  # of the latents that are kept; None: none are


class SampleRecords:
    """The records of one folder or zip of samples: ``names`` are the files beside them in its folder ``prefix``."""

    def __init__(self, container: Folder | Archive, prefix: str, names: Collection[str]) -> None:
        self._container, self._prefix, self._names = container, prefix, names
        self._sums = self._read_sums()

    def about(self) -> dict[str, Any] | None:
        """The content of samples.json; None where another tool wrote it.

        Raises:
            DataError: it is ours, and damaged; or it is missing, and the files beside it say that there was one.
        """
        if ABOUT not in self._names:
            raise DataError(
                f"{self._place('')} holds samples of dmp without their {ABOUT}", hint="Copy the whole folder again."
            )
        place = self._place(ABOUT)
        data = self._read(ABOUT)
        try:
            content = parse_json(decode_text(data, name=place, kind=DataError), name=place, kind=DataError, paths=True)
        except DataError:
            if PLAN in self._names:  # a file of ours that was cut short must not pass as another tool's
                raise
            return None
        if not is_ours(content) or "sample" not in content["made"] or content.get("num_images") is None:
            return None
        check_about(content, name=place, kind=DataError, hint=_AGAIN)
        return content

    def notes(self, about: dict[str, Any], count: int) -> SampleNotes:
        """Classes and prompts of the images 0..count-1, by the lines of plan.jsonl.

        Raises:
            DataError: it is missing, damaged, or shorter than that; or a class is none of the backbone's.
        """
        if PLAN not in self._names:
            raise DataError(
                f"{self._place('')} has no {PLAN}, which says the class or prompt of each of its samples", hint=_AGAIN
            )
        place = self._place(PLAN)
        text = decode_text(self._read(PLAN), name=place, kind=DataError)
        labels, prompts, index = np.full(count, -1, np.int64), list[str](), 0
        for number, row in parse_json_lines(text, name=place, kind=DataError):
            if index == count:
                break
            where = f"{place}, line {number}"
            label, prompt = _parse(row, index, where)
            if index and ((label is None) != (labels[0] < 0) or (prompt is None) == bool(prompts)):
                raise DataError(f"{where} has other fields than the first line", hint=_AGAIN)
            labels[index] = -1 if label is None else label
            prompts += [] if prompt is None else [prompt.strip()]
            index += 1
        if index < count:
            raise DataError(f"{place} ends after {index:,} of {count:,} samples", hint=_AGAIN)
        classes = [] if labels[0] < 0 else self._classes(about, int(labels.max()))
        labels = labels if classes else np.zeros(count, np.int64)
        return SampleNotes(labels, classes, prompts or None, self._codec(about))

    def _codec(self, about: dict[str, Any]) -> CodecRecord | None:
        """The codec of the latents that are kept, if any are."""
        kept = about["made"].get("latents")
        if kept is None:
            return None
        place = self._place(ABOUT)
        if kept != _LATENTS:
            raise DataError(f"{place}: this dmp does not know latents of type {kept[:40]}", hint="Update dmp.")
        return check_types(CodecRecord, about["made"].get("codec"), name=place, kind=DataError, hint=_AGAIN)

    def _classes(self, about: dict[str, Any], largest: int) -> list[str]:
        """All classes of the backbone: a class keeps its index, however few of them were drawn."""
        sizes = (about["made"].get("backbone") or {}).get("sizes") or {}
        known = next((sizes[key] for key in _CLASS_COUNTS if isinstance(sizes.get(key), int)), None)
        count = largest + 1 if known is None else known
        if not largest < count <= _MOST_CLASSES:
            raise DataError(f"{self._place(PLAN)} has a class {largest}, and the backbone has {count} classes")
        names = (about.get("origin") or {}).get("classes")
        return list(names) if names and len(names) == count else [str(index) for index in range(count)]

    def _read_sums(self) -> dict[str, set[str]]:
        """The sums of the records; folders of earlier versions have none."""
        if RECORD_SUMS not in self._names:
            return {}
        place = self._place(RECORD_SUMS)
        with naming(place):
            return parse_record_sums(self._container.read(self._prefix + RECORD_SUMS), path=Path(place), kind=DataError)

    def _read(self, name: str) -> bytes:
        with naming(self._place(name)):
            data = self._container.read(self._prefix + name)
        if name in self._sums and hashlib.sha256(data).hexdigest() not in self._sums[name]:
            raise DataError(f"{self._place(name)} was changed after it was written", hint=_AGAIN)
        return data

    def _place(self, name: str) -> str:
        return f"{self._container.path}/{self._prefix}{name}".rstrip("/")


def is_record(container: Folder | Archive, name: str) -> bool:
    """Whether the samples.json called ``name`` is one of ours; one that cannot be read is none."""
    try:
        return is_ours(parse_json(container.read(name).decode(), name=name, kind=DataError, paths=True))
    except (DataError, ValueError, OSError, zipfile.BadZipFile):
        return False


def _parse(row: Any, index: int, where: str) -> tuple[int | None, str | None]:
    """Class and prompt in one line of a plan. Raises DataError where it is not that of image ``index``."""
    if not isinstance(row, dict) or row.get("index") != index:
        raise DataError(f"{where} is not about sample {index}", hint=_AGAIN)
    label, prompt = row.get("class"), row.get("prompt")
    if not (label is None or (type(label) is int and 0 <= label < _MOST_CLASSES)):
        raise DataError(f"{where}: class {label!r:.40} is not the number of a class", hint=_AGAIN)
    if not (prompt is None or isinstance(prompt, str)):
        raise DataError(f"{where}: prompt {prompt!r:.40} is no text", hint=_AGAIN)
    return label, prompt
