"""dmp_cli.errors: what a file says is shown in messages, and never commands the terminal."""

from __future__ import annotations

import pickle
import unicodedata

import pytest

from dmp_cli.errors import ConfigError, StoppedError, one_line, visible

EVERY = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x20000))))
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_no_control_character_and_no_mark_of_direction_is_left() -> None:
    for text, kept in ((visible(EVERY), "\n\t"), (one_line(EVERY), "")):
        left = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Zl", "Zp")}
        assert left == set(kept)
        assert not set(text) & set(DIRECTIONS)
        marks = {"L", "R", "AL", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        formats = {letter for letter in text if unicodedata.category(letter) == "Cf"}
        assert not {letter for letter in formats if unicodedata.bidirectional(letter) in marks - {"L", "AL"}}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\u001b[31mred"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\x9b2J\x7f\0", r"\u009b2J\u007f\u0000"),
        ("gnp.\u202etac", r"gnp.\u202etac"),
        ("line\u2028line", r"line\u2028line"),
        ("日本 é ± … 👩\u200d🎨 \\x1b", "日本 é ± … 👩\u200d🎨 \\x1b"),  # a joiner makes one picture of two
    ],
)
def test_what_is_escaped_and_what_is_not(text: str, shown: str) -> None:
    assert one_line(text) == shown
    assert one_line(shown) == shown  # a message within another one stays as it is
    assert visible(text).replace("\n", r"\n").replace("\t", r"\t") == shown


def test_a_name_cannot_add_a_line_to_an_error() -> None:
    error = ConfigError("no image a\nerror: all is well\x1b[2K", hint="Give \r another.", details=["  one", "  t\nwo"])
    assert str(error).split("\n") == [
        r"no image a\nerror: all is well\u001b[2K",
        "  one",
        r"  t\nwo",
        r"Give \r another.",
    ]
    assert ConfigError(error.message.split("\n")[0]).message == error.message.split("\n")[0]


def test_errors_stay_what_they_are_when_they_are_sent() -> None:
    error = ConfigError("a\nb", hint="c", details=["d"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a\\nb\nd\nc"
    assert StoppedError("a\x1b", signal_number=15).message == r"a\u001b"
