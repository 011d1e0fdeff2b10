"""``dmp train --data`` on a folder that ``dmp sample`` made: classes and prompts from its own records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli import load_patch
from tests.backbones.pipelines import tiny_unet, write_pipeline
from tests.builders import write_images

from .conftest import Run, parse
from .samples import QUICK


def draw(run: Run, words: list[Any], folder: str, *more: Any) -> Path:
    run("sample", *words, "-n", 8, "--batch-size", 4, *QUICK, *more, "-o", folder)
    return Path(folder)


def train(run: Run, words: list[Any], data: Path | str, folder: str, *more: Any) -> str:
    steps = ["--steps", 3, "--batch-size", 3, "--lr", 0.01]
    return run("train", *words, "--data", data, *steps, *more, "-o", folder).stderr


def test_single_files_and_tars_train_the_same_patch(run: Run, backbone: list[str]) -> None:
    said = train(run, backbone, draw(run, backbone, "flat/own"), "flat/run")
    assert "8 images 8x8 RGB; 4 classes: 0, 1, 2, 3" in said
    train(run, backbone, draw(run, backbone, "tars/own", "--tar"), "tars/run", "-q")
    assert Path("flat/run/patch.safetensors").read_bytes() == Path("tars/run/patch.safetensors").read_bytes()
    assert json.loads(Path("flat/run/config.json").read_text())["images"]["rules"] == 3
    run("train", "--resume", "-o", "flat/run", "--data", "tars/own", "--steps", 5, "-q")  # packed meanwhile, say
    run("train", "--resume", "-o", "tars/run", "--steps", 5, "-q")
    one, other = (load_patch(Path(f"{name}/run/patch.safetensors")) for name in ("flat", "tars"))
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))


def test_classes_that_were_not_drawn_are_classes_still(run: Run, backbone: list[str]) -> None:
    said = train(run, backbone, draw(run, backbone, "own", "--classes", "2"), "run")
    assert "4 classes" in said
    Path("own/plan.jsonl").unlink()
    failed = run("train", *backbone, "--data", "own", "-o", "other", code=1).stderr
    assert "own has no plan.jsonl" in failed
    assert len(failed.splitlines()) == 2


def test_a_backbone_that_reads_text_learns_from_its_prompts(run: Run, tmp_path: Path) -> None:
    pipeline = ["--backbone", write_pipeline(tmp_path / "pipeline", tiny_unet(), text="clip")]
    Path("prompts.txt").write_text("a red fox\na blue owl\n")
    own = ["--prompts", "prompts.txt", "--guidance", 1]
    run("sample", *pipeline, *own, "-n", 2, "--steps", 2, "--sampler", "ddim", "--device", "cpu", "-q", "-o", "own")
    run("train", *pipeline, "--data", "own", "--steps", 1, "--batch-size", 2, "--sample-every", 0, "-q", "-o", "run")
    assert load_patch(Path("run/patch.safetensors")).record.training["num_images"] == 2


def test_the_preview_is_no_image_of_a_reference(run: Run, backbone: list[str]) -> None:
    draw(run, backbone, "own")
    options = ["--features", "pixels", "--bootstrap", 0, "--json", "-q"]
    report = parse(run("eval", "--samples", "own", "--reference", "own", *options, "-o", "scores"))
    assert report["reference_provenance"]["count"] == 8


@pytest.mark.parametrize("method", ["lora", "dmp", "bitfit"])
def test_a_negative_of_other_classes_is_refused(run: Run, backbone: list[str], tmp_path: Path, method: str) -> None:
    learnt = {"lora": "adapter", "dmp": "patch.safetensors", "bitfit": "tuned.safetensors"}[method]
    images = write_images(tmp_path / "numbers")
    for folder, names in (("animals", ("cat", "dog", "fox", "owl")), ("people", ("ann", "bob", "cid", "dee"))):
        for index, name in enumerate(names):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).symlink_to(images / str(index))
    train(run, backbone, "animals", "base", "--follow-links", "--method", "full", "-q")
    base = ["--backbone", tmp_path / "base" / "backbone.safetensors"]
    how = ["--method", method, "-q"]
    train(run, base, "people", "theirs", "--follow-links", *how)
    train(run, base, "animals", "same", "--follow-links", *how)
    train(run, base, draw(run, base, "own"), "negative", *how)
    common = ["sample", *base, "-n", 1, *QUICK, "--against"]
    failed = run(*common, f"theirs/{learnt}", "-o", "out", code=1).stderr
    assert "of other classes than the backbone: 4 classes: 0 ann" in failed
    assert len(failed.splitlines()) == 2
    for fine in ("same", "negative"):
        run(*common, f"{fine}/{learnt}", "-o", fine + "-out")
