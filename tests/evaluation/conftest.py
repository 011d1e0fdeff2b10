"""Folders of random pictures, and the configuration that scores them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmp_cli.config import EvalConfig
from dmp_cli.evaluation.results import Evaluation
from dmp_cli.evaluation.scoring import evaluate
from tests.builders import write_images


def write_folder(path: Path, n: int, *, seed: int, low: int = 0, size: int = 2) -> Path:
    path.mkdir(parents=True)
    for index, picture in enumerate(draw_pictures(n, seed=seed, low=low, size=size)):
        Image.fromarray(picture).save(path / f"{index:06d}.png")
    return path


def draw_pictures(n: int, *, seed: int, low: int = 0, size: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 256, (n, size, size, 3), np.uint8)


def pixel_features(n: int, *, seed: int, low: int = 0) -> np.ndarray:
    return draw_pictures(n, seed=seed, low=low).reshape(n, 12).astype(np.float32) / 255


def config_for(samples: list[Path], reference: Path, **options: Any) -> EvalConfig:
    options = {"features": "pixels", "bootstrap": 0, "kid_subsets": 5, "kid_subset_size": 20, **options}
    return EvalConfig(samples=tuple(samples), reference=reference, **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    return {
        "reference": write_folder(root / "reference", 60, seed=0),
        "near": write_folder(root / "near", 40, seed=1),
        "copy": write_folder(root / "copy", 40, seed=1),
        "far": write_folder(root / "far", 40, seed=2, low=128),
        "few": write_folder(root / "few", 15, seed=3),
        "single": write_folder(root / "single", 1, seed=4),
    }


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    real, a, b = (
        write_images(tmp_path / n, count=12, size=3, classes=0, seed=s) for s, n in enumerate(("r", "a", "b"))
    )
    made = {"num_images": 12, "made": {"sample": {"sampler": "ddim", "steps": 50, "guidance": 1.5, "seed": 7}}}
    (a / "samples.json").write_text(json.dumps(made))
    return evaluate(EvalConfig(samples=(a, b), reference=real, features="pixels", bootstrap=4))


def config_of(evaluation: Evaluation) -> EvalConfig:
    folders = tuple(Path(row.samples) for row in evaluation.rows)
    return EvalConfig(samples=folders, reference=Path(evaluation.reference), features="pixels", bootstrap=4)
