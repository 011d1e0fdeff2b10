"""Markdown tables: their lines, their alignment, and bars inside cells."""

from dmp_cli.report.markdown import markdown_table


def test_a_table_has_titles_alignment_and_rows() -> None:
    lines = markdown_table(["method", "FID"], [["base", "6.27"], ["a|b", "5.87"]])
    assert lines == ["| method | FID |", "| --- | ---: |", "| base | 6.27 |", r"| a\|b | 5.87 |"]


def test_a_table_without_rows() -> None:
    assert markdown_table(["one"], []) == ["| one |", "| --- |"]
