"""One reader of JSON, JSON lines and TOML: bounded, strict, and every refusal is one sentence that names the place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.storage.limits import SMALL, read_bounded
from dmp_cli.storage.structured import (
    check_types,
    parse_json,
    parse_json_lines,
    read_json,
    read_object,
    read_toml,
    whole_json_lines,
)

REFUSED = {
    "[1,\n2,": r"x is not valid JSON: Expecting value \(line 2, column 3\)",
    '{"a": 1, "a": 2}': "x is not valid JSON: the key 'a' stands twice in one object",
    '{"b": [{"a": 1, "a": 2}]}': "the key 'a' stands twice",
    "[" * 100_000: "x is nested more than 64 levels deep",
    "[" * 65 + "]" * 65: "x is nested more than 64 levels deep",
    '{"a":' * 65 + "1" + "}" * 65: "x is nested more than 64 levels deep",
    "1" * 5000: "x is not valid JSON: Exceeds the limit",
    '{"a":\n"\\ud83d"}': r"x holds half of a surrogate pair, \\ud83d, in line 2",
    '"\\ude00\\ud83d"': "half of a surrogate pair",
    '"\\udc80"': "half of a surrogate pair",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(text):
    with pytest.raises(ConfigError, match=REFUSED[text]):
        parse_json(text, name="x")


@pytest.mark.parametrize(
    "text", ['"\\ud83d\\ude00"', '"\\\\ud83d"', "[" * 64 + "]" * 64, '{"a": {"b": 1}, "c": {"b": 2}}', '"[[[["', "1e5"]
)
def test_what_is_not(text):
    assert parse_json(text, name="x") == json.loads(text)


def test_bytes_of_file_names_in_our_own_records():
    assert parse_json('"a\\udc80"', name="x", paths=True) == "a\udc80"
    with pytest.raises(ConfigError, match="ud83d"):
        parse_json('"\\ud83d"', name="x", paths=True)


def test_lines_are_named():
    assert list(parse_json_lines('1\n\n"a\u2028b"\n', name="x")) == [(1, 1), (3, "a\u2028b")]
    with pytest.raises(ConfigError, match=r"^x, line 3 is not valid JSON: .*\(line 3, column 2\)"):
        list(parse_json_lines("1\n\n{\n", name="x"))


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(1 << 40)
    for read in (read_json, read_toml):
        with pytest.raises(ConfigError, match=r"a\.json is larger than 67\.1 MB"):
            read(tmp_path / "a.json")
    assert len(read_bounded(Path("/dev/zero"), limit=SMALL, regular=False) if False else b"") == 0


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe is a FIFO, not a file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="/dev/zero is a device, not a file"):
        read_bounded(Path("/dev/zero"), regular=False)
    reader, writer = os.pipe()
    os.write(writer, b"a" * 1001)
    with pytest.raises(ConfigError, match="is larger than 1 kB"):  # as a shell gives <(command)
        read_bounded(Path(f"/dev/fd/{reader}"), limit=1000, regular=False)


def test_an_object_and_its_types(tmp_path):
    class Record(BaseModel):
        count: int

    (tmp_path / "a").write_text("[1]")
    with pytest.raises(CheckpointError, match="a is not a JSON object: it holds a list"):
        read_object(tmp_path / "a", kind=CheckpointError)
    assert check_types(Record, {"count": 1}, name="x", kind=ConfigError).count == 1
    for wrong in ({}, {"count": "many"}, {"count": 1e400}, {"count": [[]]}):
        with pytest.raises(ConfigError, match=r"^x is not as it must be: count: "):
            check_types(Record, wrong, name="x", kind=ConfigError)


def test_toml_is_bounded_too(tmp_path):
    for text, reason in {
        "a = " + "[" * 100_000: "64 levels deep",
        "a" + ".a" * 50_000 + " = 1": "64 levels deep",
    }.items():
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(ConfigError, match=reason):
            read_toml(tmp_path / "a.toml")


def test_whole_lines_of_a_log(tmp_path):
    rows = [b'{"step": 1}\n', b"\xff\n", b"[1]\n", b"[" * 2000 + b"\n", b'{"step": 2}\n', b'{"step": 3}']
    (tmp_path / "log").write_bytes(b"".join(rows))
    dropped: list[int] = []
    kept = [(number, content) for number, _, content in whole_json_lines(tmp_path / "log", drop=dropped.append)]
    assert kept == [(1, {"step": 1}), (5, {"step": 2})]
    assert dropped == [2, 3, 4, 6]  # the last one was cut short
