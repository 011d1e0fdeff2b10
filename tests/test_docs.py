"""What is generated for the docs is current, and every option says in a sentence what it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dmp_cli.cli import app

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "script", ["wings.py", "help_texts.py", "what_is_read.py", pytest.param("memory.py", marks=pytest.mark.slow)]
)
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


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "docs/method.md"])
def test_pages_name_files_and_things_that_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    folders = [ROOT, ROOT / "dmp_cli", ROOT / "dmp_cli" / "config", ROOT / "docs", ROOT / "tests" / "backbones"]
    for path in set(re.findall(r"`([a-z_./]+\.(?:py|pyi))`", text)) - {"utils.py"}:
        assert any((folder / path).exists() for folder in folders), path
    # `wing/module.py` (`name`, `other`), and `wing/module.py`: `name`
    for path, names in re.findall(r"`([a-z_/]+\.py)`(?::| \()((?: ?`\w+`,?)+)", text):
        source = next(folder / path for folder in folders if (folder / path).exists()).read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b{name}\b", source), f"{path}: {name}"
