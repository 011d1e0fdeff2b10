"""Pictures and captions as people have them, through whole commands: what is said of them, and how often."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backbones.pipelines import tiny_unet, write_captioned, write_pipeline
from tests.builders import write_images
from tests.zoo.captioned import json_lines
from tests.zoo.pictures import RESOLUTION, tiff

from .conftest import Run, parse

STEPS: list[Any] = ["--steps", 3, "--batch-size", 4, "--sample-every", 0]


def test_training_says_what_it_passes_over_and_what_pillow_warns_of(
    run: Run, backbone: list[str], images: Path
) -> None:
    for name in ("a.jxl", "b.jxl", "c.psd"):
        (images / "0" / name).touch()
    bad_entry = struct.pack("<HHII", RESOLUTION, 5, 1, 0xFFFFFF00)
    odd = images / "1" / "odd.tif"
    odd.write_bytes(tiff(np.zeros((9, 9, 3), np.uint8), more=(bad_entry,)))
    said = run("train", *backbone, "--data", images, *STEPS, "--batch-size", 9, "-o", "run").stderr
    assert f"warning: {images}: 3 files passed over: 2 .jxl, 1 .psd. Convert them to PNG or JPEG, or remove" in said
    assert said.count(f"warning: {odd}: Truncated File Read") == 1
    said = run("train", *backbone, "--data", images, *STEPS, "--max-pixels", 64, "-o", "small").stderr
    assert f"skipped: cannot read {odd}: it has 81 pixels, and --max-pixels is 64" in said
    run("train", "--resume", "-o", "small", "--steps", 6, "--max-pixels", 81, "-q")  # it may change


def test_the_store_says_it_too(run: Run, backbone: list[str], images: Path) -> None:
    bad_entry = struct.pack("<HHII", RESOLUTION, 5, 1, 0xFFFFFF00)
    odd = images / "1" / "odd.tif"
    odd.write_bytes(tiff(np.zeros((9, 9, 3), np.uint8), more=(bad_entry,)))
    how = ["train", *backbone, "--data", images, *STEPS, "--store-dir", "store"]
    assert run(*how, "-o", "one").stderr.count(f"{odd}: Truncated File Read") == 1
    assert "Truncated" not in run(*how, "-o", "two").stderr
    odd.write_bytes(tiff(np.full((9, 9, 3), 9, np.uint8), more=(bad_entry,)))  # of the same size
    assert "1 image has changed since store was made, and is encoded again" in run(*how, "-o", "three").stderr


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return write_pipeline(tmp_path / "pipeline", tiny_unet(), text="clip")


def test_lists_of_captions_and_long_ones_in_training(run: Run, pipeline: Path, tmp_path: Path) -> None:
    data = write_captioned(tmp_path / "captioned")
    for note in [*data.glob("*.txt"), *data.glob("metadata.*")]:
        note.unlink()
    names = sorted(path.name for path in data.glob("*.png"))
    long = "a red fox and two cats " * 30
    texts = [["a red fox", "two cats"], long, *["a fox"] * (len(names) - 2)]
    rows = ({"file_name": name, "text": text} for name, text in zip(names, texts, strict=True))
    (data / "metadata.jsonl").write_text(json_lines(*rows))
    said = run("train", "--backbone", pipeline, "--data", data, *STEPS, "-o", "run").stderr
    assert f"1 of {len(names) + 1} captions are longer than the" in said
    assert "of the first it does not read: " in said
    run("train", "--backbone", pipeline, "--data", data, *STEPS, "--steps", 6, "-o", "straight", "-q")
    said = run("train", "--resume", "-o", "run", "--steps", 6).stderr
    assert "longer" not in said  # it was said when the run began
    assert Path("run/patch.safetensors").read_bytes() == Path("straight/patch.safetensors").read_bytes()


def test_prompts_that_are_long_or_negative(run: Run, pipeline: Path) -> None:
    how = ["sample", "--backbone", pipeline, "--sampler", "ddim", "--steps", 2]
    said = run(*how, "--prompt", "a red fox and two cats " * 30, "-o", "long").stderr
    assert "it does not read: " in said
    assert "read" not in run(*how, "--prompt", "a red fox", "-o", "short").stderr
    Path("prompts.txt").write_text("a red fox --n two cats --d 1\na red fox --d 1\n")
    run(*how, "--prompts", "prompts.txt", "-o", "drawn", "-q")
    assert (Path("drawn/000000.png").read_bytes()) != (Path("drawn/000001.png").read_bytes())
    plan = [json.loads(line) for line in Path("drawn/plan.jsonl").read_text().splitlines()]
    assert [line.get("negative") for line in plan] == ["two cats", None]
    run(*how, "--plan", "drawn/plan.jsonl", "-o", "again", "-q")
    for name in ("000000.png", "000001.png"):
        assert Path("again", name).read_bytes() == Path("drawn", name).read_bytes()
    (first, second) = json.loads(Path("drawn/samples.json").read_text())["made"]["sample"]["prompts"]
    assert first["negative"] == "two cats"
    assert "negative" not in second
    failed = run(*how, "--prompts", "prompts.txt", "--guidance", 1, "-o", "off", code=1)
    assert "the negative prompt 'two cats' does nothing: guidance is off" in failed.stderr


def test_the_npz_of_samples_scores_as_the_folder(run: Run, backbone: list[str], tmp_path: Path) -> None:
    run("sample", *backbone, "-n", 8, "--sampler", "ddim", "--steps", 2, "--npz", "-o", "drawn", "-q")
    real = write_images(tmp_path / "real", count=24, classes=0)
    how = ["--reference", real, "--features", "pixels", "--bootstrap", 0, "-o", "scores", "--json"]
    rows = parse(run("eval", "--samples", "drawn", "--samples", "drawn/samples.npz", *how))["rows"]
    assert rows[0]["scores"]["fid"]["value"] == rows[1]["scores"]["fid"]["value"]
    assert rows[0]["made"] == rows[1]["made"]
    (real / "x.jxl").touch()
    failed = run("eval", "--samples", "drawn", *how, "--force", code=1)
    assert (
        f"{real}: 1 file passed over: 1 .jxl; a score over fewer images does not compare with others" in failed.stderr
    )
