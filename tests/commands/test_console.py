"""What commands print: a terminal that is not UTF-8 ends none of them, and --json is ASCII."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dmp_cli.cli import app
from dmp_cli.commands import COMMANDS

from .conftest import Run, parse

FOX = "狐…"  # a folder's name that Latin-1 cannot show


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "cp1252"])
def test_help_in_any_encoding(charset: str) -> None:
    for name in ("", *COMMANDS):
        result = CliRunner(charset=charset).invoke(app, [name, "--help"] if name else ["--help"])
        assert result.exit_code == 0, (name, result.exception)


@pytest.mark.parametrize(("charset", "shown"), [("utf-8", FOX), ("latin-1", "\\u72d0..."), ("cp1252", "\\u72d0…")])
def test_paths_in_any_encoding(charset: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["patch", "--backbone", "digits", "-o", f"{FOX}/p.safetensors"]
    result = CliRunner(charset=charset).invoke(app, options)
    assert result.exit_code == 0, result.exception
    assert f"wrote {shown}/p.safetensors" in result.stdout
    again = CliRunner(charset=charset).invoke(app, options)
    assert again.exit_code == 1
    assert f"error: {shown}/p.safetensors exists already" in again.stderr


def test_json_is_ascii(run: Run) -> None:
    options = ["patch", "--backbone", "digits", "-o", f"{FOX}/p.safetensors", "--json"]
    for more in (["--dry-run"], []):
        result = run(*options, *more)
        assert result.stdout.isascii()
        assert parse(result)["output"] == f"{FOX}/p.safetensors"


def test_names_that_are_no_utf8(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    """Old disks have names in Latin-1: they are shown, written into records, and found again."""
    data, samples = (os.fsdecode(name) for name in (b"caf\xe9", b"caf\xe9-s"))
    images.rename(tmp_path / data)
    how = ["--data", data, "--steps", 1, "--batch-size", 2, "--latent-store"]
    assert "caf\\udce9" not in run("train", *backbone, *how, "-o", "out").stdout
    run("train", "--resume", "-o", "out", "--steps", 2, "-q")
    said = run("sample", "--patch", "out/patch.safetensors", "-n", 2, "--steps", 2, "-o", samples).stdout
    assert "wrote 2 images to caf\\udce9-s" in said
    options = ["--samples", samples, "--reference", data, "--features", "pixels", "-o", "scores"]
    assert parse(run("eval", *options, "--json"))["reference"] == data
