"""Stable Diffusion XL through every command, from a pipeline folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backbones.pipelines import write_captioned, write_xl_pipeline

from .conftest import Run, parse

HOW = ("--batch-size", 2, "--lr", 0.01, "--sample-every", 0, "-q")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_xl_pipeline(tmp_path / "xl")
    return tmp_path / "xl"


@pytest.mark.slow
def test_train_resume_sample_and_measure(run: Run, folder: Path, tmp_path: Path) -> None:
    write_captioned(tmp_path / "images", count=6, size=64)
    train = ["train", "--backbone", folder, "--data", "images", *HOW]
    run(*train, "--steps", 4, "-o", "straight")
    run(*train, "--steps", 2, "-o", "parts")
    run("train", "--resume", "-o", "parts", "--steps", 4, "-q")
    assert Path("straight/patch.safetensors").read_bytes() == Path("parts/patch.safetensors").read_bytes()
    told = run("patch", "--info", "straight/patch.safetensors").stdout
    assert "unet" in told
    draw = ["--prompt", "a red fox", "-n", 2, "--steps", 2, "--sampler", "ddim", "-q"]
    run("sample", "--patch", "straight/patch.safetensors", *draw, "-o", "patched")
    run("sample", "--backbone", folder, *draw, "-o", "bare")
    assert Path("patched/000000.png").read_bytes() != Path("bare/000000.png").read_bytes()
    run("inspect-gates", "--patch", "straight/patch.safetensors", "-o", "gates", "-q")
    loss = ["eval", "--loss", "--patch", "straight/patch.safetensors", "--val-data", "images", "--val-draws", 40]
    assert parse(run(*loss, "-o", "loss", "--json"))


@pytest.mark.parametrize("method", ["lora", "full", "difffit"])
def test_other_methods(method: str, run: Run, folder: Path, tmp_path: Path) -> None:
    write_captioned(tmp_path / "images", count=4, size=64)
    train = ["train", "--backbone", folder, "--data", "images", *HOW]
    run(*train, "--method", method, "--steps", 2, "-o", "out")
    full = ["--backbone", "out/backbone.safetensors"]
    learnt = {"lora": ["--backbone", folder, "--adapter", "out/adapter"], "full": full}
    source = learnt.get(method, ["--backbone", folder, "--adapter", "out/tuned.safetensors"])
    run("sample", *source, "--prompt", "two cats", "-n", 1, "--steps", 2, "--sampler", "ddim", "-o", "s", "-q")


def test_the_report_of_the_public_sizes(run: Run) -> None:
    told = parse(run("patch", "--backbone", "sdxl", "--json"))
    assert told["backbone_parameters"] == 2_567_463_684
    shapes = [block["hidden_shape"] for block in told["blocks"]]
    assert shapes == [
        *([32, 32, 320], [16, 16, 320], [8, 8, 640], [8, 8, 1280]),
        *([8, 8, 1280], [16, 16, 1280], [32, 32, 640]),
    ]
    assert told["per_cent"] < 0.2
