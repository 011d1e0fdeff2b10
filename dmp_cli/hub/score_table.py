"""The scores of a ``report.json`` as a table of a card: each with its spread, each difference with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from ..errors import ConfigError, one_line
from ..report import markdown_table


def score_lines(report: Mapping[str, Any]) -> list[str]:
    """The table, and in a sentence each what the scores are of.

    Raises:
        ConfigError: it is no report of dmp eval.
    """
    try:
        rows = [list(_cells(row)) for row in report["rows"]]
        names = list(report["rows"][0]["scores"])
        columns = ["samples", "images", *(title for name in names for title in (name, "difference (95 %)"))]
        about = (
            f"Features: {report['features']}, {report['features_digest']}. "
            f"Reference: {PurePath(report['reference']).name}, {report['reference_provenance']['count']} images. "
            "± is the standard error over which images were drawn; the difference is from the first row."
        )
        told = [one_line(f"Warning: {warning}") for warning in report["warnings"]]
        return [*markdown_table(columns, rows), "", _plain(about), *(f"\n{_plain(line)}" for line in told)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError("the report.json of --scores is not as dmp eval writes it", hint="Score again.") from error


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    yield _plain(PurePath(row["samples"]).name)
    yield f"{row['count']:,}"
    for score in row["scores"].values():
        spread, interval = score["spread"], score["interval"]
        yield f"{score['value']:.5g}" + ("" if spread is None else f" ± {spread:.2g}")
        difference = "base" if score["difference"] is None else f"{score['difference']:+.4g}"
        yield difference + ("" if interval is None else f" ({interval[0]:+.4g} to {interval[1]:+.4g})")


def _plain(text: str) -> str:
    """Text in which nothing is markup of a link, of a picture or of HTML."""
    return "".join(f"\\{letter}" if letter in "<>[]`*_" else letter for letter in one_line(text))
