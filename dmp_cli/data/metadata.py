"""``metadata.jsonl`` and ``metadata.csv``: files that give captions to the images in and below their folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import DataError
from ..storage import decode_text, parse_json_lines

JSON_LINES, COMMAS = "metadata.jsonl", "metadata.csv"
_HINT = 'Write lines such as {"file_name": "1.jpg", "text": "a red fox"}.'
_KEYS = ("text", "caption")  # fields that may hold the caption; the first that is not null counts
_KINDS = {bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list"}


class Line(NamedTuple):
    """What one line says of one image."""

    number: int
    file_name: str  # as it is written
    texts: list[str]  # captions; empty: it has none


def parse_metadata(content: bytes, *, place: str) -> Iterator[Line]:
    """The lines of the metadata file ``place``. Raises DataError, which names the line, for one that says nothing."""
    text = decode_text(content, name=place, kind=DataError)
    for number, fields in _parse_commas(text, place) if place.endswith(COMMAS) else _parse_json_lines(text, place):
        where = f"{place}, line {number}"
        if not isinstance(fields.get("file_name"), str):
            raise DataError(f"{where} lacks file_name or text", hint=_HINT)
        yield Line(number, fields["file_name"], texts_of(fields, place=where))


def texts_of(fields: Mapping[str, Any], *, place: str) -> list[str]:
    """The captions in ``text`` or ``caption``: one string, or a list of them; null means none.

    Raises:
        DataError: it is something else; the message names ``place`` and says what it is.
    """
    key, value = next(((key, fields[key]) for key in _KEYS if fields.get(key) is not None), ("", None))
    values = [] if value is None else value if isinstance(value, list) else [value]
    for one in values:
        if not isinstance(one, str):
            inside = f"{key} holds" if isinstance(value, list) else f"{key} is"
            kind = "null" if one is None else f"{_KINDS.get(type(one), type(one).__name__)}, {json.dumps(one)[:40]}"
            raise DataError(f"{place}: {inside} {kind}, not text", hint="A caption is a string, or a list of strings.")
    return [one.strip() for one in values]


def _parse_json_lines(text: str, place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, fields in parse_json_lines(text, name=place, kind=DataError):
        yield number, fields if isinstance(fields, dict) else {}


def _parse_commas(text: str, place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in rows:
            yield rows.line_num, {key: value or None for key, value in row.items() if key is not None}
    except csv.Error as error:
        raise DataError(f"{place}, line {rows.line_num} is not valid CSV: {error}") from error
