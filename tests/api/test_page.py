"""The code of docs/python.md and docs/index.md, run from top to bottom as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import dmp_cli
from dmp_cli.demo import load_digits
from tests.api.conftest import save_grey

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
INDEX = PAGE.with_name("index.md")
CODE: dict[str, str] = dict(re.findall(r"<!-- code: (\w+) -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


def test_all_code_of_the_page_is_marked() -> None:
    assert PAGE.read_text().count("```python") == len(CODE)
    called = set(re.findall(r"`(\w+)\(", re.split(r"\n## ", PAGE.read_text())[0]))
    assert called <= {*dmp_cli.__all__, "save_pretrained", "from_pretrained"}


def write_some(folder: Path) -> None:
    """96 of the digits that are part of the package, in folders of their classes."""
    images, labels = load_digits()
    for index in range(96):
        save_grey(folder / str(labels[index]) / f"{index}.png", images[index])


@pytest.mark.slow
def test_the_quick_start_runs(tmp_path: Path) -> None:
    write_some(tmp_path / "images")
    (code,) = re.findall(r"<!-- code: quick start -->\n```python\n(.*?)```", INDEX.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(INDEX), "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "my-patch", "first.png"}
    assert "trained for 100 steps" in repr(names["patched"])


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_some(tmp_path / "images")
    names: dict[str, Any] = {}
    for code in CODE.values():
        exec(compile(code, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out
    assert "trained for 200 steps, attached, strength 1" in shown
    assert len(names["losses"]) == 4
    pictures = {name: [image.tobytes() for image in names[name]] for name in ("images", "bare", "half")}
    assert len({tuple(several) for several in pictures.values()}) == 3
    assert names["pixels"].shape == (8, 8, 8, 1)
    assert (names["said"], names["added"].shape) == ("depth=9: this backbone has 2 blocks", (16, 12))
    assert list(names["again"].patches) == ["default"]
