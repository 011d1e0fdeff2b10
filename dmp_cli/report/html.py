"""One self-contained HTML page from texts, tables and pictures. It loads nothing from the network, not even a font.

A page with sliders, or with a table that can be sorted, holds one script, which the page's content security policy
allows by its hash. Readers who do not run scripts still see every picture and every row.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from ..errors import visible
from .intervals import Intervals

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Cells of a column of numbers: 1,024  -3.5 %  5.87 ± 0.03  -1 to +2  -0.41 (-0.62 to -0.20)  12.0 s; and "none"
_ONE = r"[-+−]?\d[\d,.]*(?:e[-+]?\d+)?"
_BEHIND = rf"(?:\s*±\s*{_ONE}|\s+to\s+{_ONE}|\s*\({_ONE} to {_ONE}\))?\s*(?:[%×]|[a-zA-Z]{{1,3}})?"
_NUMBER = re.compile(rf"[±≈~<>]?\s*{_ONE}{_BEHIND}|[-–—]?|n/a")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text. The first cell of a row names it. ``best`` holds the (row, column) of the bold cells, from 0.

    ``hover`` are the whole names of the rows, where the first cells hold short ones. ``bold`` says what bold cells are.
    ``marked`` cells get a sign that leads to ``footnotes``, which stand below the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    best: frozenset[tuple[int, int]] = frozenset()
    bold: tuple[str, str] = ("The best values are", "best")  # in the caption, and of each cell for who does not see it
    hover: Sequence[str] = ()
    marked: frozenset[tuple[int, int]] = frozenset()
    footnotes: Sequence[str] = ()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), "one cell per column"

    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers, which are aligned to the right."""
        return [place > 0 and all(map(_is_number, column)) for place, column in enumerate(zip(*self.rows, strict=True))]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG. ``alt`` says in words what it shows. A ``wide`` picture takes the whole width and scrolls on a phone."""

    png: bytes
    alt: str
    caption: str = ""
    wide: bool = False

    def __post_init__(self) -> None:
        assert self.png.startswith(PNG_SIGNATURE), "pictures are PNG"

    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        # They are the first fields of the header chunk, which is always the first chunk.
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    def data_uri(self) -> str:
        """The picture as a data URI, an address that contains all its bytes."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two pictures of the same size on top of each other. A slider sets how much of ``after`` is visible."""

    before: Picture
    after: Picture
    names: tuple[str, str]
    caption: str = ""

    def __post_init__(self) -> None:
        assert self.before.size() == self.after.size(), "both pictures have the same size"


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Pictures of the same size, of which one is visible at a time. A slider, labelled ``what``, selects it."""

    pictures: Sequence[Picture]
    names: Sequence[str]  # one per picture, such as its timestep
    what: str
    caption: str = ""

    def __post_init__(self) -> None:
        assert len(self.pictures) == len(self.names) > 0, "one name per picture"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands below it, in the order of the fields. `Backticks` in paragraphs mark code."""

    heading: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    comparisons: Sequence[Comparison] = ()
    frames: Sequence[Frames] = ()
    commands: str | None = None

    @property
    def has_sliders(self) -> bool:
        """Whether any part of the section has a slider."""
        return bool(self.comparisons or self.frames)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page. ``provenance`` is the footer, which says how the page was made and from what."""

    title: str
    lead: str
    sections: Sequence[Section]
    provenance: Mapping[str, str] = field(default_factory=dict)
    answer: str = ""  # what the page says, in one sentence with a number
    intervals: Intervals | None = None  # the differences behind the answer


def render(page: Page) -> str:
    """The page as the text of one HTML file. All text is escaped and all pictures are embedded."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,  # no HTML may hold them
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _script(page)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(page=page, script=script, digest=digest) + "\n"


def _script(page: Page) -> str:
    """The script of what the page has, sliders and tables of several rows, without its tags; empty: neither."""
    has_tables = any(section.table is not None and len(section.table.rows) > 1 for section in page.sections)
    has = {"sliders.js": any(section.has_sliders for section in page.sections), "sorting.js": has_tables}
    folder = resources.files(__package__) / "templates"
    return "".join((folder / name).read_text(encoding="utf-8") for name, there in has.items() if there)


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None
