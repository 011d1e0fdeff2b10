"""Class and prompt of the images of one tar, from a plan.jsonl of any length: it is gone through once, not for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data import GROUP
from ..errors import ConfigError
from ..storage import decode_text, open_regular, parse_json

_LONGEST = 16 << 20  # bytes of a line

Stamp = tuple[int, int]  # time in ns and size of the plan


class PlannedNotes:
    """What a plan says of the images of each group of so many consecutive ones."""

    def __init__(self, path: Path, *, each: int = GROUP) -> None:
        self.path, self._each = path, each
        self._known: tuple[Stamp, dict[int, tuple[int, int]]] | None = None  # group -> where its lines begin and end

    def of(self, group: int) -> dict[int, dict[str, str]]:
        """Class and prompt of the images of ``group`` by index, each by the suffix that webdataset has for it.

        Raises:
            ConfigError: the plan cannot be read, or is not JSON.
        """
        try:
            return self._find(group)
        except OSError as error:
            raise ConfigError(f"cannot read {self.path}: {error.strerror or error}") from error

    def _find(self, group: int) -> dict[int, dict[str, str]]:
        start, end = self._spans().get(group, (0, 0))
        found: dict[int, dict[str, str]] = {}
        for _, _, item in self._rows(start, end):
            index = _index_of(item)
            if index is not None and index // self._each == group:
                values = {"cls": item.get("class"), "txt": item.get("prompt")}
                found[index] = {suffix: str(value) for suffix, value in values.items() if value is not None}
        return found

    def _spans(self) -> dict[int, tuple[int, int]]:
        """From the first to the last line of each group; a plan that was changed is gone through again."""
        status = self.path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        if self._known is None or self._known[0] != stamp:
            spans: dict[int, tuple[int, int]] = {}
            for start, end, item in self._rows(0, status.st_size):
                if (index := _index_of(item)) is not None:
                    group = index // self._each
                    spans[group] = (min(start, spans.get(group, (start, 0))[0]), end)
            self._known = stamp, spans
        return self._known[1]

    def _rows(self, start: int, end: int) -> Iterator[tuple[int, int, Any]]:
        """Begin, end and content of each line between two places."""
        name = str(self.path)
        with open_regular(self.path) as file:
            file.seek(start)
            while start < end and (row := file.readline(_LONGEST)):
                text = decode_text(row, name=name).strip()
                if text:
                    yield start, start + len(row), parse_json(text, name=name)
                start += len(row)


def _index_of(item: Any) -> int | None:
    index = item.get("index") if isinstance(item, dict) else None
    return index if isinstance(index, int) else None
