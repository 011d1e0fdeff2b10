"""What is generated for the docs is current, and every option says in a sentence what it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import dmp_cli
from dmp_cli.cli import app

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "script",
    [
        "wings.py",
        "help_texts.py",
        "what_is_read.py",
        "readme_memory.py",
        "scale.py",
        pytest.param("memory.py", marks=pytest.mark.slow),
    ],
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


# The pages with code of Python, and the test that runs each block of them as it stands there.
RUN_BY = {
    "README.md": "test_readme.py",
    "docs/adding-a-family.md": "families/test_adding.py",
    "docs/by-hand.md": "backbones/test_by_hand_page.py",
    "docs/guidance.md": "patching/test_guided_in_pipelines.py",
    "docs/index.md": "api/test_page.py",
    "docs/python.md": "api/test_page.py",
}


def test_all_python_of_the_pages_is_run_by_a_test() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    shown = {str(page.relative_to(ROOT)) for page in pages if "```python" in page.read_text()}
    assert shown == RUN_BY.keys()
    for page, test in RUN_BY.items():
        assert Path(page).name in (ROOT / "tests" / test).read_text(), page


def test_the_site_has_every_page_and_every_name() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    assert {*re.findall(r": ([\w-]+\.md)$", site, re.MULTILINE)} >= {page.name for page in (ROOT / "docs").glob("*.md")}
    reference = (ROOT / "docs" / "reference.md").read_text()
    told = {*re.findall(r"^::: [\w.]+\.(\w+)$", reference, re.MULTILINE), *re.findall(r"fields: (\w+)", reference)}
    assert told == {*dmp_cli.__all__} - {"__version__"}


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
