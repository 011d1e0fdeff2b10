"""Text of any editor: byte order marks and line ends change nothing; what is not UTF-8 is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.errors import CheckpointError, ConfigError, DataError
from dmp_cli.storage.structured import read_json, read_toml
from dmp_cli.storage.text import decode_text, read_text
from tests.zoo.texts import UNREADABLE, WRITERS

LINES = 'name = "狐"\n\n# \u2028 is no line end\nlast = 1\n'


@pytest.mark.parametrize("writer", WRITERS)
def test_every_editor_writes_the_same_text(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(WRITERS[writer](LINES))
    assert read_text(path) == decode_text(path.read_bytes(), name="a") == LINES
    assert read_toml(path) == (LINES, {"name": "狐", "last": 1})
    path.write_bytes(WRITERS[writer]('{"a":\n[1, 2]}\n'))
    assert read_json(path) == {"a": [1, 2]}


@pytest.mark.parametrize("writer", UNREADABLE)
def test_other_encodings_are_named(writer: str, tmp_path: Path) -> None:
    write, said = UNREADABLE[writer]
    path = tmp_path / "plan.jsonl"
    path.write_bytes(write("first\nsecond\n"))
    with pytest.raises(ConfigError, match=f"^--plan P {said}") as caught:
        read_text(path, name="--plan P")
    assert caught.value.hint == "Save it as UTF-8."
    with pytest.raises(DataError, match=f"plan.jsonl {said}"):
        read_text(path, kind=DataError)


def test_the_line_of_a_wrong_byte() -> None:
    with pytest.raises(ConfigError, match=r"^a is not UTF-8 text: line 3 holds the byte 0xe9\n"):
        decode_text(b"first\r\nsecond\r\ncaf\xe9\r\n", name="a")


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{")
    with pytest.raises(ConfigError, match=r"^cannot read --config X: No such file or directory$"):
        read_toml(tmp_path / "none", name="--config X")
    with pytest.raises(ConfigError, match=r"^--config X is not valid TOML: "):
        read_toml(tmp_path / "a", name="--config X")
    with pytest.raises(CheckpointError, match="/a is not valid JSON: Expecting property name"):
        read_json(tmp_path / "a", kind=CheckpointError)
    (tmp_path / "a").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="/a is nested more than 64 levels deep"):
        read_json(tmp_path / "a", kind=CheckpointError)
