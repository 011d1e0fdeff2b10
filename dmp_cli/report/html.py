"""Numbers and pictures -> one self-contained HTML page: no network, no font of its own.

Where pictures have sliders, one script moves them, named by its hash in the page's policy; without it, or where a
reader does not run scripts, every picture is still there.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
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
        assert self.png.startswith(PNG_SIGNATURE), "pictures are PNG"

    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        # They open the header chunk, which is always the first.
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    def data_uri(self) -> str:
        """The picture as the address of itself."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two pictures of one size on top of each other; a slider says how much of ``after`` is seen."""

    before: Picture
    after: Picture
    names: tuple[str, str]
    caption: str = ""

    def __post_init__(self) -> None:
        assert self.before.size() == self.after.size(), "they lie on top of each other"


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Pictures of one size, one of them seen at a time; a slider over ``what`` says which."""

    pictures: Sequence[Picture]
    names: Sequence[str]  # of each, such as its timestep
    what: str
    caption: str = ""

    def __post_init__(self) -> None:
        assert len(self.pictures) == len(self.names) > 0, "one name a picture"


@dataclass(frozen=True, kw_only=True)
class Section:
    """One heading and what stands under it, in the order of the fields. `Backticks` in paragraphs set code."""

    heading: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    comparisons: Sequence[Comparison] = ()
    frames: Sequence[Frames] = ()
    commands: str | None = None

    @property
    def slides(self) -> bool:
        """Whether it has a slider."""
        return bool(self.comparisons or self.frames)


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
    script = _script() if any(section.slides for section in page.sections) else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(page=page, script=script, digest=digest) + "\n"


def _script() -> str:
    """What moves the sliders, as it stands between its tags."""
    return (resources.files(__package__) / "templates" / "sliders.js").read_text(encoding="utf-8")


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None
