"""Rows of a table that are equal but for the number at the end of their names, as one row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

_NUMBERED = re.compile(r"(.*?)(\d+)")


def fold(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """``rows``, in which those of consecutive numbers with equal cells are one.

    So ``blocks.0 | 256 x 384`` to ``blocks.11 | 256 x 384`` become ``blocks 0-11 | 12 x (256 x 384)``.
    """
    groups = groupby(enumerate(rows), key=lambda numbered: _key(numbered[1], numbered[0]))
    return [_merge([list(row) for _, row in group]) for _, group in groups]


def _key(row: Sequence[str], place: int) -> tuple[str, int, tuple[str, ...]]:
    """Equal for neighbours that are folded: the name, how far its number is from the place, and the cells."""
    found = _NUMBERED.fullmatch(row[0])
    stem, shift = (row[0], -1 - place) if found is None else (found[1], int(found[2]) - place)
    return stem, shift, tuple(row[1:])


def _merge(rows: list[list[str]]) -> list[str]:
    first, *cells = rows[0]
    if len(rows) == 1:
        return rows[0]
    stem = first.rstrip("0123456789")
    name = f"{stem.rstrip('.')} {first[len(stem) :]}-{rows[-1][0][len(stem) :]}".strip()
    return [name, *(f"{len(rows)} x {f'({cell})' if ' ' in cell else cell}" for cell in cells)]
