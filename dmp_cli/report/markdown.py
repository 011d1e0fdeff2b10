"""Markdown tables from rows of text."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for the titles, one for the alignment and one for each row. All columns but the first align right."""
    alignment = ["---", *["---:"] * (len(columns) - 1)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (columns, alignment, *rows)]
