"""What is generated for the docs is current, and every option says in a sentence what it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dmp_cli.cli import app

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("script", ["wings.py", "help_texts.py"])
def test_what_is_generated_is_current(script: str) -> None:
    done = subprocess.run(
        [sys.executable, f"docs/{script}", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_option_has_a_sentence() -> None:
    for name, command in typer.main.get_command(app).commands.items():
        for parameter in command.params:
            text = parameter.help
            assert text, f"{name} {parameter.name}"
            assert text[0].isupper(), f"{name} {parameter.name}: {text}"
            assert text.endswith("."), f"{name} {parameter.name}: {text}"
            assert len(text.split()) >= 3, f"{name} {parameter.name}: {text}"
