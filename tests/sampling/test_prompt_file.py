"""The file of --prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.config import Prompt
from dmp_cli.errors import ConfigError
from dmp_cli.sampling.prompt_file import read_prompts


def write(folder: Path, text: str) -> Path:
    path = folder / "prompts.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_and_their_options(tmp_path: Path) -> None:
    text = "\ufeff# animals\r\n a red fox --d 42 --l 7.5\r\n\ntwo cats\u2028 -- or three\n"
    text += "ein Käse --l 1 --n  low quality, bad --d 3\nnone --n\n"
    assert read_prompts(write(tmp_path, text)) == (
        Prompt(text="a red fox", seed=42, guidance=7.5),
        Prompt(text="two cats\u2028 -- or three"),
        Prompt(text="ein Käse", guidance=1.0, seed=3, negative="low quality, bad"),
        Prompt(text="none"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb --q 3", "line 2: --q is unknown"),
        ("a --w 512", "line 1: --w cannot be set for one prompt"),
        ("a --n ugly --n bad", "line 1: --n is given twice"),
        ("a --d x", "line 1: --d 'x'"),
        ("a --d -1", "line 1: --d '-1'"),
        ("a --l nan", "line 1: --l"),
        ("# nothing\n\n", "holds no prompt"),
        ("a --d 1 --d 2", "line 1: --d is given twice"),
        ("a\n--d 4", "line 2 has options but no text"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_prompts(write(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read --prompts"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"K\xe4se")
    with pytest.raises(ConfigError, match=r"--prompts .*latin\.txt is not UTF-8 text: line 1 holds the byte 0xe4"):
        read_prompts(tmp_path / "latin.txt")
