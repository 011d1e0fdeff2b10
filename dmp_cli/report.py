"""Numbers and pictures -> one self-contained HTML page: no script, no network, no font of its own."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What may stand in a column of numbers: 1,024  -3.5 %  5.87 ± 0.03  12.0 s  1.96e-4, and signs for "none"
_NUMBER = re.compile(r"[-+−±≈~<>]?\s*\d[\d,.]*(e[-+]?\d+)?(\s*±\s*\d[\d.]*)?\s*([%×]|[a-zA-Z]{1,3})?|[-–—]?|n/a")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text. The first column names its row; ``best`` marks cells by (row, column), counted from 0."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    best: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), "one cell a column"

    def numeric(self) -> list[bool]:
        """For each column whether it holds numbers, which are set to the right."""
        return [place > 0 and all(map(_is_number, column)) for place, column in enumerate(zip(*self.rows, strict=True))]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG; ``alt`` says in words what it shows. ``wide``: takes the whole width, and on a phone scrolls sideways."""

    png: bytes
    alt: str
    caption: str = ""
    wide: bool = False

    def __post_init__(self) -> None:
        assert self.png.startswith(_PNG_SIGNATURE), "pictures are PNG"

    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        # They open the header chunk, which is always the first.
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    def data_uri(self) -> str:
        """The picture as the address of itself."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True, kw_only=True)
class Section:
    """One heading and what stands under it, in the order of the fields. `Backticks` in paragraphs set code."""

    heading: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    commands: str | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page; ``provenance`` is the footer: what made the page, from what."""

    title: str
    lead: str
    sections: Sequence[Section]
    provenance: Mapping[str, str] = field(default_factory=dict)


def render(page: Page) -> str:
    """The page as one HTML file. All text is escaped; pictures are embedded."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(page=page) + "\n"


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None
