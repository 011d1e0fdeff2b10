"""What a test that passed says of a family in the table of docs/families.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .cases import Case

COLUMNS = (
    *("prompts", "training", "samples", "samplers", "any size", "any shape", "prepend", "experts", "LoRA", "full"),
    *("in use", "patch file", "killed", "text store", "measured"),
)


def shows(column: str, cell: Callable[[Case], str]) -> pytest.MarkDecorator:
    """Mark a test: where it passes, the cell of its family in ``column`` says ``cell(case)``."""
    assert column in COLUMNS, column
    return pytest.mark.shows(column, cell)
