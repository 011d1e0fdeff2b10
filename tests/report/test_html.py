"""The page: self-contained, escaped, and complete for screen readers."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from dmp_cli.report.html import Page, Picture, Section, Table, render

VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Reads the elements of a page with their attributes, in order. Fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag):
        return [data for name, data in self.texts if name == tag]


def png(width=3, height=2):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def full_page(**changes):
    table = Table(
        columns=["method", "FID", "note"],
        rows=[["base", "6.27 ± 0.10", "as loaded"], ["DMP, EMA", "5.87 ± 0.08", "patched"]],
        caption="Lower is better",
        best=frozenset({(1, 1)}),
    )
    sections = [
        Section(heading="Scores", paragraphs=["Scored with `dmp eval`."], table=table),
        Section(
            heading="Pictures",
            pictures=[
                Picture(png=png(), alt="samples", caption="From one noise"),
                Picture(png=png(7, 5), alt="gates", wide=True),
            ],
            commands="dmp sample \\\n  --patch a.safetensors",
        ),
        Section(heading="Curves"),
        Section(heading="How"),
    ]
    return Page(
        **({"title": "A demo", "lead": "What it shows.", "sections": sections, "provenance": {"seed": "0"}} | changes)
    )


def test_nothing_is_fetched_and_nothing_runs():
    text = render(full_page())
    page = Reader(text)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    (script,) = page.text("script")  # which sorts the table
    assert not re.search(r"fetch|XMLHttp|import|WebSocket|src|href|eval|innerHTML", script)
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(addresses) == 2 + 1 + 4  # pictures, icon, contents
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_pictures_are_embedded_whole():
    images = Reader(render(full_page())).all("img")
    # the wide one comes first
    assert [(image["alt"], image["width"], image["height"]) for image in images] == [
        ("gates", "7", "5"),
        ("samples", "3", "2"),
    ]
    prefix = "data:image/png;base64,"
    assert [base64.b64decode(image["src"].removeprefix(prefix)) for image in images] == [png(7, 5), png()]


EVIL = "<script>alert('x')</script>\"&"


@pytest.mark.parametrize(
    "page",
    [
        full_page(title=EVIL),
        full_page(lead=EVIL),
        full_page(lead=f"`{EVIL}`"),
        full_page(provenance={EVIL: EVIL}),
        full_page(sections=[Section(heading=EVIL, paragraphs=[EVIL], commands=EVIL)] * 4),
        full_page(sections=[Section(heading="h", pictures=[Picture(png=png(), alt=EVIL, caption=EVIL)])]),
        full_page(sections=[Section(heading="h", pictures=[Picture(png=png(), alt=EVIL, caption=EVIL, wide=True)])]),
        full_page(
            sections=[
                Section(
                    heading="h",
                    table=Table(
                        columns=[EVIL, EVIL], rows=[[EVIL, EVIL]], caption=EVIL, best=frozenset({(0, 0), (0, 1)})
                    ),
                )
            ]
        ),
    ],
)
def test_everything_is_escaped(page):
    text = render(page)
    own = "".join(Reader(text).text("script"))
    assert text.count("<script") == bool(own)
    assert EVIL not in text
    assert "&lt;script&gt;alert(" in text
    assert "&amp;lt;" not in text  # and only once
    assert len(Reader(text).all("script")) == bool(own)


def test_the_policy_allows_exactly_the_script_of_the_page():
    text = render(full_page())
    (script,) = Reader(text).text("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    one_row = Table(columns=["a"], rows=[["1"]], caption="")
    assert "<script" not in render(full_page(sections=[Section(heading="Nothing to sort", table=one_row)]))


def test_marked_cells_lead_to_the_note_below_their_table():
    table = Table(
        columns=["samples", "FID"],
        rows=[["a", "5.87"], ["b", "3.1"]],
        caption="",
        marked=frozenset({(1, 1)}),
        footnotes=["Too few images.", "And more."],
    )
    page = Reader(render(full_page(sections=[Section(heading="Scores", table=table)])))
    assert [link["href"] for link in page.all("a") if link.get("class") == "mark"] == ["#table-1-note"]
    assert [note.get("id") for note in page.all("p") if note.get("class") == "footnote"] == ["table-1-note", None]
    assert "† Too few images." in [text.strip() for text in page.text("p")]


def test_headings_are_in_order_and_linked():
    page = Reader(render(full_page()))
    headings = [name for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert headings == ["h1"] + ["h2"] * 5  # four sections and the footer
    assert page.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    links = [attributes["href"].removeprefix("#") for attributes in page.all("a")]
    assert set(links + named) <= set(ids)


def test_a_table_is_complete_for_a_screen_reader():
    page = Reader(render(full_page()))
    assert [attributes["scope"] for attributes in page.all("th")] == ["col"] * 3 + ["row"] * 2
    assert len(page.all("caption")) == 1
    assert "5.87 ± 0.08" in page.text("strong")
    assert "6.27 ± 0.10" in page.text("td")
    assert " (best)" in page.text("span")


def test_columns_of_numbers_are_set_to_the_right():
    cells = ["5.87", "−3.5 %", "1,024", "0.3 ± 0.1", "1.96e-4", "–", "12 s"]
    rows = [[str(place), cell, f"step {place}", cell] for place, cell in enumerate(cells)]
    rows[3][3] = "diverged"
    assert Table(columns=["a", "b", "c", "d"], rows=rows, caption="").numeric() == [False, True, False, False]
    page = Reader(render(full_page()))
    assert [attributes.get("class") for attributes in page.all("td")] == ["number", None] * 2


def test_a_table_without_rows_renders():
    empty = Section(heading="h", table=Table(columns=["a", "b"], rows=[], caption="nothing yet"))
    assert len(Reader(render(full_page(sections=[empty]))).all("th")) == 2


def test_backticks_set_code_and_commands_keep_their_lines():
    page = Reader(render(full_page()))
    assert page.text("code") == ["dmp eval", "dmp sample \\\n  --patch a.safetensors"]


def test_a_short_page_has_no_contents_and_no_empty_footer():
    page = Reader(render(full_page(sections=[Section(heading="Only")], provenance={})))
    assert not page.all("nav")
    assert not page.all("footer")


def test_pictures_that_are_not_png_and_uneven_tables_are_refused():
    with pytest.raises(AssertionError):
        Picture(png=b"GIF89a", alt="")
    with pytest.raises(AssertionError):
        Table(columns=["a"], rows=[["1", "2"]], caption="")
