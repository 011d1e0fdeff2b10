"""Whole commands in process: ``run(...)`` types a command and returns what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dmp_cli.cli import app
from tests.builders import tiny_dit, write_images, write_meta_checkpoint

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Type ``dmp ARGS`` in an empty folder; ``code`` is the exit code expected."""
    monkeypatch.chdir(tmp_path)

    def typed(*arguments: Any, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, f"{result.exit_code}: {result.stdout}{result.stderr}{result.exception!r}"
        return result

    return typed


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A Meta-style training checkpoint of a tiny DiT with 4 classes and a null row, in pixel space."""
    return write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight 8x8 pictures in four class folders."""
    return write_images(tmp_path / "images")


@pytest.fixture
def backbone(checkpoint: Path) -> list[str]:
    """The options that name the tiny DiT."""
    return ["--backbone", str(checkpoint), "--num-classes", "4", "--num-heads", "2"]


@pytest.fixture
def patch(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> Path:
    """A patch trained for three steps."""
    run("train", *backbone, "--data", images, "--steps", 3, "--batch-size", 4, "--lr", 0.01, "-o", "trained", "-q")
    return tmp_path / "trained" / "patch.safetensors"


def files_in(folder: Path) -> set[str]:
    """Every file below ``folder``, by relative path."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def parse(result: Result) -> dict[str, Any]:
    """The one JSON object on stdout."""
    return json.loads(result.stdout)
