"""Images in the rows of a table: a data set of the hub, a folder that ``datasets`` reads, or a parquet file.

``datasets`` maps Arrow files into memory, so that a row is read when it is asked for. n images in n rows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .bounds import BOUNDS, Bounds
from .classes import ClassNames, order_folders, positions
from .columns import Chosen, Columns, choose_columns
from .decoding import naming
from .kinds import BEFORE_SAMPLES, RULES
from .packed_strings import PackedStrings
from .source import ImageSource, Stamp
from .table_loading import Table, load_table

_CHUNK = 10_000  # rows that are looked at in one go


class TableImages(ImageSource):
    """The images of one table, in the order of its rows.

    Raises:
        DataError: a row has no image; or classes are missing, no numbers, or not those that are ``named``.
    """

    def __init__(
        self, path: Path, table: Table, chosen: Chosen, *, named: ClassNames | None, rules: int, bounds: Bounds
    ) -> None:
        self.path, self._table, self._chosen, self._bounds = Path(path), table, chosen, bounds
        self.rules, self.passed_over, self.origin = min(rules, BEFORE_SAMPLES), {}, table.origin
        names: list[str] = []
        sizes: list[int] = []
        for rows in table.pieces(chosen.image, _CHUNK):
            for entry in rows:
                row = len(names)
                if entry is None or (entry["bytes"] is None and entry["path"] is None):
                    raise DataError(f"{path}: row {row} has no image in the column {chosen.image}")
                names.append(os.path.basename(entry["path"] or "") or f"row-{row:06d}")
                sizes.append(self._size(entry["bytes"], entry["path"]))
        if not names:
            raise DataError(f"no images in {path}: the table has no rows")
        self._names, self._sizes = PackedStrings(names), np.array(sizes, np.int64)  # (n,)
        self._captioned = np.zeros(len(names), bool)
        digest = hashlib.sha256()
        for name, size in zip(names, sizes, strict=True):
            digest.update(b"%s\0%d\n" % (name.encode("utf-8", "surrogateescape"), size))
        if chosen.caption is not None:
            texts = [texts_of(value) for rows in table.pieces(chosen.caption, _CHUNK) for value in rows]
            self._captioned = np.array([bool(found) for found in texts], bool)
            digest.update("".join("\0".join(found) + "\n" for found in texts).encode("utf-8", "surrogatepass"))
        self.labels, self.classes = self._classes(named)
        self.fingerprint = digest.hexdigest()

    @property
    def captioned(self) -> np.ndarray:
        return self._captioned

    def captions(self, index: int) -> list[str]:
        if not self._captioned[index] or self._chosen.caption is None:
            raise DataError(f"{self.name(index)} has no caption")
        return texts_of(self._table.value(self._chosen.caption, index))

    def name(self, index: int) -> str:
        return f"{self.path}/{self._names[index]}".encode("utf-8", "backslashreplace").decode()

    def read(self, index: int) -> bytes:
        with naming(self.name(index)):
            entry = self._table.value(self._chosen.image, index)
            if entry["bytes"] is not None:
                self._bounds.check_size(len(entry["bytes"]))
                return bytes(entry["bytes"])
            return self._bounds.read(self._table.inside(entry["path"]))

    def stamp(self, index: int) -> Stamp:
        return Stamp(int(self._sizes[index]), 0)

    def _size(self, content: bytes | None, path: str | None) -> int:
        if content is not None:
            return len(content)
        try:
            return os.stat(self._table.inside(str(path))).st_size
        except (OSError, ValueError):  # it is said when the image is read
            return 0

    def _classes(self, named: ClassNames | None) -> tuple[np.ndarray, list[str]]:
        column, count = self._chosen.label, len(self._sizes)
        if column is None:
            return np.zeros(count, np.int64), []
        values = [value for rows in self._table.pieces(column, _CHUNK) for value in rows]
        bad = next((row for row, value in enumerate(values) if value is None or value in (-1, "")), None)
        if bad is not None:
            raise DataError(f"{self.path}: row {bad} has no class in the column {column}")
        if isinstance(values[0], str):
            found = set(values)
            names = list(named.names) if named is not None else order_folders(found)
            position = positions(found, named or ClassNames(tuple(names), str(self.path)))
            return np.array([position[value] for value in values], np.int64), names
        labels = np.array(values, np.int64)
        known = list(named.names) if named is not None else self._chosen.classes
        if known is None:
            known = [str(label) for label in range(int(labels.max()) + 1)]
        if labels.min() < 0 or labels.max() >= len(known):
            place = self.path if named is None else named.place
            raise DataError(f"{place} names {len(known)} classes, but {self.path} has a class {labels.max()}")
        return labels, list(known)


def texts_of(value: Any) -> list[str]:
    """The captions in one cell: a text, or a list of them; what is empty is none."""
    several: Sequence[Any] = value if isinstance(value, list) else [value]
    return [text.strip() for text in several if isinstance(text, str) and text.strip()]


def find_table(
    path: Path,
    name: str,
    *,
    columns: Columns,
    download: bool,
    rules: int = RULES,
    named: ClassNames | None = None,
    bounds: Bounds = BOUNDS,
) -> TableImages:
    """The images of the table ``name``, which the user gave as ``path``.

    Raises:
        DataError: it is not there or cannot be read, or its columns are not told apart.
    """
    table = load_table(path, name, download=download)
    chosen = choose_columns(table.features, columns, place=str(path))
    return TableImages(path, table.of(chosen.names), chosen, named=named, rules=rules, bounds=bounds)
