"""Markdown tables from rows of text."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import one_line


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for the titles, one for the alignment and one for each row. All columns but the first align right."""
    alignment = ["---", *["---:"] * (len(columns) - 1)]
    lines = [[one_line(cell).replace("|", "\\|") for cell in line] for line in (columns, alignment, *rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
