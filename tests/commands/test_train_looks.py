"""What ``dmp train`` says of the images it trains on, and that colours are not lost without a word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.builders import tiny_dit, write_images, write_meta_checkpoint

from .conftest import Run, files_in


def grey_backbone(folder: Path) -> list[str]:
    weights = write_meta_checkpoint(folder / "grey.pt", tiny_dit(in_channels=1))
    return ["--backbone", str(weights), "--num-classes", "4", "--num-heads", "2"]


def test_a_line_says_what_is_trained_on(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    how = ["train", *backbone, "--steps", 1, "--batch-size", 2]
    assert "8 images 8x8 RGB; 4 classes: 0, 1, 2, 3\n" in run(*how, "--data", images, "-o", "a").stderr
    for number, path in enumerate(sorted((tmp_path / "images").rglob("*.png"))):
        Image.fromarray(np.full((20, 30 + number, 3), number, np.uint8)).save(path)
    said = run(*how, "--data", images, "-o", "b").stderr
    assert "8 images 30x20 to 37x20 grey, centre square, to 8x8; 4 classes: 0, 1, 2, 3\n" in said


def test_colours_are_not_lost_without_a_word(run: Run, images: Path, tmp_path: Path) -> None:
    how = ["train", *grey_backbone(tmp_path), "--data", images, "--steps", 1, "--batch-size", 2, "-o", "out"]
    refused = run(*how, code=1).stderr
    assert f"error: this backbone is for grey images, and {images}/0/0000.png has colours\n" in refused
    assert "Train on the pictures as grey ones with --grey" in refused
    assert not Path("out").exists()
    assert "8 images 8x8 RGB, as grey; 4 classes" in run(*how, "--grey").stderr
    assert "grey" not in json.loads(Path("out/config.json").read_text())["options"]
    # a run that began, as those of earlier versions did, goes on
    run("train", "--resume", "-o", "out", "--steps", 2, "-q")


def test_grey_pictures_in_any_mode_need_no_leave(run: Run, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    for path in data.rglob("*.png"):
        Image.open(path).convert("L").convert("RGB").save(path)
    how = ["train", *grey_backbone(tmp_path), "--data", data, "--steps", 1, "--batch-size", 2]
    assert "8 images 8x8 grey; 4 classes" in run(*how, "-o", "out").stderr


def test_an_ablation_says_so_before_it_trains(run: Run, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", count=20, classes=10)
    (tmp_path / "arms.toml").write_text('[[arm]]\nname = "one"\n')
    how = ["ablate", "arms.toml", "--backbone", "digits", "--data", data, "-o", "out"]
    assert "has colours" in run(*how, code=1).stderr
    assert not Path("out").exists()
    assert "--grey" in run(*how, "--grey", "--dry-run").stdout
    assert not [name for name in files_in(tmp_path) if name.startswith("out")]
