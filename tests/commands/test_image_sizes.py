"""Images that are no squares, through every command; and sizes that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli import load_patch
from tests.backbones.pipelines import tiny_pixart, tiny_unet, write_captioned, write_pipeline
from tests.commands.conftest import Run


def test_a_run_that_is_no_square(run: Run, tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    data = write_captioned(tmp_path / "captioned")
    how = ["--steps", 1, "--batch-size", 2, "--store-dir", "store", "-q"]
    run(
        "train",
        "--backbone",
        pipeline,
        "--data",
        data,
        "--image-size",
        "24x16",
        "--val-split",
        0.4,
        "--val-draws",
        40,
        "--sample-every",
        1,
        *how,
        "-o",
        "run",
    )
    record = load_patch(Path("run/patch.safetensors")).record
    assert record is not None
    assert record.image_size == "24x16"
    assert json.loads(Path("store/manifest.json").read_text())["image_size"] == "24x16"
    assert json.loads(Path("run/config.json").read_text())["options"]["image_size"] == "24x16"
    drawing = ["--prompt", "a fox", "--sampler", "ddim", "--steps", 2, "-q"]
    run("sample", "--patch", "run/patch.safetensors", *drawing, "-n", 2, "-o", "drawn")
    assert np.asarray(Image.open("drawn/000000.png")).shape == (16, 24, 3)
    assert json.loads(Path("drawn/samples.json").read_text())["made"]["image_size"] == "24x16"
    run("eval", "--loss", "--patch", "run/patch.safetensors", "--val-data", data, "--val-draws", 40, "-q", "-o", "loss")
    about = ["--features", "pixels", "--metrics", "fid", "-q"]
    refused = run("eval", "--samples", "drawn", "--reference", data, *about, "--crop", "16x24", "-o", "scores", code=1)
    assert "holds images of 16x24 pixels, but" in refused.stderr
    run("patch", "--backbone", pipeline, "--image-size", 16, "-o", "zero.safetensors", "-q")
    run("train", "--backbone", pipeline, "--data", data, "--image-size", "24x16", *how, "--method", "full", "-o", "all")
    run("sample", "--backbone", "all/backbone.safetensors", *drawing, "-o", "by-all")
    assert np.asarray(Image.open("by-all/000000.png")).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("832x1213", "need a multiple of 4 pixels; the nearest that fit are 832x1212 and 832x1216"),
        ("30", "need a multiple of 4 pixels; the nearest that fit are 32 and 28"),
        ("2x8", "need a multiple of 4 pixels; the least is 4x8"),
        ("8x", "--image-size 8x: give pixels: a side such as 512, or width x height such as 832x1216"),
    ],
)
def test_sizes_that_cannot_be(run: Run, tmp_path: Path, size: str, told: str) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_pixart(), text="t5")
    result = run("patch", "--backbone", pipeline, "--image-size", size, "-o", "zero.safetensors", code=1)
    assert told in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "command", [["patch", "--backbone", "dit-s8"], ["train", "--method", "scratch", "--data", "data", "-o", "run"]]
)
def test_a_dit_from_its_name_makes_squares(run: Run, tmp_path: Path, command: list[str]) -> None:
    write_captioned(tmp_path / "data")
    backbone = [] if "--backbone" in command else ["--backbone", "dit-s8"]
    result = run(*command, *backbone, "--vae", "none", "--image-size", "16x24", code=1)
    assert "--image-size: dit-s8 makes square images only" in " ".join(result.stderr.split())
