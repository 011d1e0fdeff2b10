"""``dmp train``: what it refuses, and that an error leaves no half-made file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.builders import write_images

from .conftest import Run, files_in


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lr", "-1"], "--lr -1.0"),
        (["--batch-size", "4", "--micro-batch-size", "3"], "does not divide"),
        (["--depth", "9"], "this backbone has 3 blocks"),
        (["--depth", "0"], "leaves nothing to train"),
        (["--method", "full", "--gate", "none"], "trains no patch"),
        (["--method", "lora", "--gate", "none"], "trains no patch"),
        (["--method", "full", "--lora-rank", "4"], "trains no adapter"),
        (["--method", "lora", "--lora-rank", "0"], "--lora-rank 0"),
        (["--method", "lora", "--lora-targets", "qkv, to_q"], "'to_q': no linear layer of a block has this name"),
        (["--method", "prompt-tuning", "--gate", "constant"], "has no gate"),
        (["--image-size", "16"], "make images of 8 pixels"),
        (["--device", "cuda:7"], "this machine has"),
        (["--device", "gpu"], "no such kind of device"),
        (["--config", "missing.toml"], "cannot read --config"),
        (["--vae", "no-such-folder"], "does not exist"),
    ],
)
def test_bad_options(
    options: list[str], message: str, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    result = run("train", *backbone, "--data", images, "--steps", 1, *options, "-o", "out", code=1)
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gate-noise", "--gate", "constant"], "--gate constant has none"),
        (["--gate-noise", "--method", "prompt-tuning"], "has no gate"),
        (["--gate", "attention", "--depth", 9], "this backbone has 3 blocks"),
    ],
)
def test_gate_options_without_a_gate(
    run: Run, images: Path, backbone: list[str], options: list[object], message: str
) -> None:
    assert message in run("train", *backbone, "--data", images, *options, "-o", "never", code=1).stderr
    assert not Path("never").exists()


def test_data_that_does_not_fit(run: Run, backbone: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    flat, two = write_images(tmp_path / "flat", classes=0), write_images(tmp_path / "two", classes=2)
    for data, message in ((empty, "no image"), (tmp_path / "none", "none"), (flat, "no class folders"), (two, "has 2")):
        result = run("train", *backbone, "--data", data, "--steps", 1, "-o", "out", code=1)
        assert message in result.stderr.lower()
        assert not (tmp_path / "out").exists()


def test_an_existing_run_is_not_overwritten(run: Run, backbone: list[str], images: Path, patch: Path) -> None:
    before = patch.read_bytes()
    common = ["train", *backbone, "--data", images, "--batch-size", 4, "-o", "trained"]
    assert "exists already" in run(*common, "--steps", 1, code=1).stderr
    assert "other settings: lr" in run(*common, "--steps", 9, "--resume", "--lr", 0.5, code=1).stderr
    assert patch.read_bytes() == before
    run(*common, "--steps", 1, "--force", "-q")
    assert patch.read_bytes() != before


def test_other_images_are_another_run(run: Run, backbone: list[str], images: Path, patch: Path) -> None:
    write_images(images, count=12)
    assert "other settings: images" in run("train", "--resume", "-o", "trained", "--steps", 5, code=1).stderr


def test_a_loss_that_is_not_finite_stops_with_the_last_good_patch(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    result = run(
        *("train", *backbone, "--data", images, "--steps", 50, "--batch-size", 4, "--method", "prompt-tuning"),
        *("--lr", 1e30, "-o", "out"),
        code=1,
    )
    assert "not all finite" in result.stderr
    assert "Traceback" not in result.stderr
    for value in load_file(tmp_path / "out" / "patch.safetensors").values():
        assert value.isfinite().all()


def test_a_full_disk_says_so_and_leaves_no_half_file(
    run: Run, backbone: list[str], images: Path, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = patch.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    result = run("train", "--resume", "-o", "trained", "--steps", 5, code=1)
    assert "no space left on the disk" in result.stderr
    assert patch.read_bytes() == before
    assert not [name for name in files_in(tmp_path) if ".partial" in name]
