"""Every kind of page that a command writes, in a browser: on a phone the answer is on the first screen."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from .test_browser import BROWSER, first_screen

SCRIPT = Path(__file__).parents[2] / "docs" / "screenshots.py"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs chromium")]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("screenshots", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCREENSHOTS = load_script()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("optuna")  # of dmp tune
    made: dict[str, Path] = SCREENSHOTS.make_pages(tmp_path_factory.mktemp("pages"))
    return made


@pytest.mark.parametrize("name", SCREENSHOTS.PAGES)
def test_the_answer_is_on_the_first_screen_of_a_phone(pages: dict[str, Path], tmp_path: Path, name: str) -> None:
    found = first_screen(tmp_path, pages[name].read_text(encoding="utf-8"), width=400)
    assert re.search(r"\d", found["answer"])  # a sentence with a number
    assert found["answer"].strip().endswith(".")
    compares = name != "gates"  # one gate is compared with nothing
    assert len(found["places"]) == (3 if compares else 1)


def test_a_picture_of_a_page(pages: dict[str, Path], tmp_path: Path) -> None:
    from PIL import Image

    papers = []
    for dark in (False, True):
        picture = tmp_path / f"{dark}.png"
        SCREENSHOTS.photograph(pages["loss"], picture, width=400, dark=dark, browser=BROWSER)
        with Image.open(picture) as shot:
            assert shot.width == 400
            papers.append(sum(shot.convert("RGB").getpixel((2, 2))))
    assert papers[1] < 100 < 700 < papers[0]
