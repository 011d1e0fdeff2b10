"""What tests of sampling share: a tiny backbone, and a folder of seven small samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmp_cli.backbones.base import Backbone
from dmp_cli.config import SampleConfig
from dmp_cli.sampling.folder import SampleFolder
from tests.builders import tiny_dit

ABOUT = {"sample": {"seed": 0, "steps": 5, "classes": [0, 1]}, "patch": "abc"}
ORIGIN = {"device": "cpu", "versions": {"dmp": "1"}}
CONFIG = SampleConfig(num_images=7, batch_size=3, classes=(0, 1))


def pixels_of(index: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (8, 8, channels), np.uint8)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def claim(path: Path, about: dict[str, Any] = ABOUT, **how: Any) -> tuple[SampleFolder, list[str]]:
    folder = SampleFolder(path)
    return folder, folder.open(about, **{"origin": ORIGIN, "num_images": 7, "force": False, **how})


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_dit()


@pytest.fixture
def filled(tmp_path: Path) -> SampleFolder:
    folder, _ = claim(tmp_path / "out")
    folder.write({index: pixels_of(index) for index in range(7)})
    return folder
