"""What Python users read: messages in the words of Python, as outside of the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli import load_backbone
from dmp_cli.backbones import Backbone
from dmp_cli.errors import DMPError, in_python
from tests.builders import TOLD, tiny_dit, write_images, write_meta_checkpoint
from tests.commands.conftest import run  # noqa: F401


@pytest.fixture(autouse=True)
def _in_python(monkeypatch: pytest.MonkeyPatch, _sealed: None, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DMPError, "__str__", lambda error: in_python(error.told()))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny DiT of pixels with 4 classes and a null row."""
    return write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())


@pytest.fixture
def load(checkpoint: Path) -> Callable[[], Backbone]:
    """Load the tiny DiT anew."""
    return lambda: load_backbone(str(checkpoint), **TOLD)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight 8x8 pictures in four class folders."""
    return write_images(tmp_path / "images")


def save_grey(path: Path, pixels: np.ndarray) -> None:
    """Write a grey picture (H, W), and the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
