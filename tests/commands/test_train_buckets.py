"""``dmp train --buckets``: images of several shapes, each shown at the size nearest to its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.backbones.pipelines import tiny_pixart, tiny_unet, write_pipeline, write_xl_pipeline

from .conftest import Run, files_in

SHAPES = ((96, 64), (64, 64), (48, 96))  # width, height
BUCKETS = {"48x80": 4, "64x64": 4, "80x48": 4}
HOW = ("--batch-size", 2, "--lr", 0.01, "--sample-every", 0, "--buckets", "--bucket-step", 16, "-q")


def write_shapes(folder: Path, *, each: int = 4) -> Path:
    """``each`` random captioned images of every shape, in turn."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index in range(each * len(SHAPES)):
        width, height = SHAPES[index % len(SHAPES)]
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text("a red fox")
    return folder


def test_a_run_resumes_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    write_xl_pipeline(tmp_path / "xl")
    train = ["train", "--backbone", "xl", "--data", write_shapes(tmp_path / "shapes"), *HOW, "--store-dir", "store"]
    run(*train, "--steps", 4, "-o", "straight")
    assert json.loads(Path("straight/config.json").read_text())["buckets"] == BUCKETS
    stores = {name: json.loads(Path(f"store/{name}/manifest.json").read_text()) for name in BUCKETS}
    assert {name: about["image_size"] for name, about in stores.items()} == {
        "48x80": "48x80",
        "64x64": 64,
        "80x48": "80x48",
    }
    assert {name: tuple(about["shape"][2:]) for name, about in stores.items()} == {
        "48x80": (10, 6),
        "64x64": (8, 8),
        "80x48": (6, 10),
    }
    run(*train, "--steps", 2, "-o", "parts")
    kept = {name: Path("store", name).read_bytes() for name in files_in(Path("store"))}
    run("train", "--resume", "-o", "parts", "--steps", 4, "-q")
    assert Path("straight/patch.safetensors").read_bytes() == Path("parts/patch.safetensors").read_bytes()
    assert {name: Path("store", name).read_bytes() for name in files_in(Path("store"))} == kept
    told = run("train", "--resume", "-o", "parts", "--steps", 5, "--bucket-step", 32, "-q", code=1).stderr
    assert "is a latent store of something else: " in told


def test_random_crops_resume_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet(), text="clip")
    train = ["train", "--backbone", pipeline, "--data", write_shapes(tmp_path / "shapes"), *HOW]
    run(*train, "--random-crop", "--steps", 3, "-o", "straight")
    run(*train, "--random-crop", "--steps", 1, "-o", "parts")
    run("train", "--resume", "-o", "parts", "--steps", 3, "-q")
    straight = Path("straight/patch.safetensors").read_bytes()
    assert Path("parts/patch.safetensors").read_bytes() == straight
    run(*train, "--no-latent-store", "--steps", 3, "-o", "centres")
    assert Path("centres/patch.safetensors").read_bytes() != straight
    told = run("train", "--resume", "-o", "centres", "--random-crop", "-q", code=1).stderr
    assert "random-crop off, now on" in " ".join(told.split())


@pytest.mark.parametrize("kind", ["unet", "pixart"])
def test_images_that_are_encoded_at_every_step(run: Run, tmp_path: Path, kind: str) -> None:
    make, text = (tiny_unet, "clip") if kind == "unet" else (tiny_pixart, "t5")
    pipeline = write_pipeline(tmp_path / "pipeline", make(), text=text)
    train = ["train", "--backbone", pipeline, "--data", write_shapes(tmp_path / "shapes"), *HOW, "--no-latent-store"]
    # The held-out images are squares of --image-size; what is left of a bucket that is too small goes to another.
    run(*train, "--val-split", 0.25, "--val-draws", 20, "--image-size", 32, "--steps", 3, "-o", "run")
    assert sum(json.loads(Path("run/config.json").read_text())["buckets"].values()) == 9
    assert sum("held_out" in line for line in Path("run/log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--bucket-step", 12], "--bucket-step 12: the codec and the backbone need a multiple of 8 pixels"),
        ([], "--buckets: images of 64x64 pixels are smaller than a step of 128"),
        (["--bucket-step", 16, "--bucket-min", 96], "leave out squares of 64 pixels"),
        (["--bucket-min", 96, "--bucket-max", 64], "--bucket-min 96 is above --bucket-max 64"),
        (["--no-buckets", "--random-crop"], "--random-crop is for images of several shapes: give --buckets too"),
        (["--random-crop", "--latent-store"], "a latent store keeps one cut of it: leave out --latent-store"),
        (["--random-crop", "--store-dir", "store"], "a latent store keeps one cut of it: leave out --store-dir"),
        (["--no-buckets", "--no-upscale"], "--no-upscale is for images of several shapes: give --buckets too"),
    ],
)
def test_options_that_do_not_fit(run: Run, tmp_path: Path, options: list[Any], told: str) -> None:
    write_xl_pipeline(tmp_path / "xl")
    options = options or ["--bucket-step", 128]
    train = ["train", "--backbone", "xl", "--data", write_shapes(tmp_path / "shapes", each=1), "--buckets", *options]
    assert told in " ".join(run(*train, "--steps", 1, "-o", "run", code=1).stderr.split())


def test_a_dit_makes_squares(run: Run, backbone: list[str], images: Path) -> None:
    told = run("train", *backbone, "--data", images, "--buckets", "-o", "run", code=1).stderr
    assert "--buckets: a backbone of the family dit makes square images of one size only" in " ".join(told.split())


def test_a_store_of_one_size_is_no_store_of_buckets(run: Run, tmp_path: Path) -> None:
    write_xl_pipeline(tmp_path / "xl")
    train = ["train", "--backbone", "xl", "--data", write_shapes(tmp_path / "shapes", each=2), "--store-dir", "store"]
    few = ["--steps", 1, "--batch-size", 2, "-q"]
    run(*train, *few, "-o", "squares")
    refused = run(*train, *few, "--buckets", "--bucket-step", 16, "-o", "shapes-run", code=1)
    assert "store is a latent store of one size, and --buckets has several" in " ".join(refused.stderr.split())
