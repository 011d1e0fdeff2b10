"""What commands read and make is bounded: FIFOs, links out of a folder, large files, absurd numbers."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

from .conftest import Run, parse


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.mark.parametrize("option", ["--prompts", "--plan"])
def test_texts_for_sample_are_files(option: str, run: Run, patch: Path, fifo: Path) -> None:
    assert "is a FIFO, not a file" in run("sample", "--patch", patch, option, fifo, code=1).stderr


def test_texts_for_train_are_files(run: Run, backbone: list[str], images: Path, fifo: Path) -> None:
    how = ["train", *backbone, "--data", images, "-o", "out"]
    assert "is a FIFO, not a file" in run(*how, "--class-names", fifo, code=1).stderr
    assert "is a FIFO, not a file" in run(*how, "--config", fifo, code=1).stderr


@pytest.mark.parametrize("name", ["fifo", "fifo.npz", "fifo.zip"])
def test_what_is_scored_is_no_fifo(name: str, run: Run, images: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    for samples, reference in ((name, images), (images, name)):
        how = ["--samples", samples, "--reference", reference, "--features", "pixels", "-o", "scores"]
        assert run("eval", *how, code=1).stderr.startswith("error: ")


def test_links_out_of_the_folder(run: Run, backbone: list[str], images: Path, patch: Path, tmp_path: Path) -> None:
    data = tmp_path / "linked"
    data.mkdir()
    for path in images.iterdir():
        (data / path.name).symlink_to(path)
    train = ["train", *backbone, "--data", data, "--batch-size", 2, "--save-every", 1, "-o", "out"]
    score = ["eval", "--samples", data, "--reference", data, "--features", "pixels", "--json"]
    look = ["inspect-gates", "--patch", patch, "--data", data, "-n", 2, "-o", "gates"]
    for command in ([*train, "--steps", 1], score, look):
        said = run(*command, code=1).stderr
        assert " is a link to " in said
        assert "--follow-links" in said
    run(*train, "--steps", 1, "--follow-links", "-q")
    assert " is a link to " in run("train", "--resume", "-o", "out", "--no-follow-links", code=1).stderr
    run("train", "--resume", "-o", "out", "--steps", 2, "-q")  # what the run was begun with counts
    assert parse(run(*score, "--follow-links"))["rows"][0]["count"] == 8
    run(*look, "--follow-links", "-q")


def test_a_file_that_is_too_large(run: Run, backbone: list[str], images: Path) -> None:
    large = sorted(images.rglob("*.png"))[0]
    os.truncate(large, 2_000_001)
    how = ["train", *backbone, "--data", images, "--steps", 4, "--batch-size", 2, "-o", "out", "--no-flip"]
    assert "it has 2 MB, and --max-file-size is 1 MB" in run(*how, "--max-file-size", 1, "--max-bad", 0, code=1).stderr
    run("train", "--resume", "-o", "out", "--max-file-size", 3, "-q")
    score = ["eval", "--samples", images, "--reference", images, "--features", "pixels"]
    assert "--max-file-size is 1 MB" in run(*score, "--max-file-size", 1, code=1).stderr
    run(*score, "-q")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-n", 10**12], "--num-images 1000000000000"),
        (["-n", 10**30], "--num-images"),
        (["--batch-size", 10**12], "--batch-size 1000000000000"),
        (["--grid", "1000000x1000000"], "--grid 1000000x1000000: a grid has 10,000 images at most"),
        (["--grid", f"{'9' * 5000}x1"], "give rows and columns"),
    ],
)
def test_absurd_numbers_of_samples(options: list[object], told: str, run: Run) -> None:
    said = run("sample", "--backbone", "digits", *options, "-o", "out", code=1).stderr
    assert said.startswith("error: ")
    assert told in said
    assert not Path("out").exists()


def test_a_grid_that_is_too_large_a_picture(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    how = ["sample", "--backbone", "digits", "-n", 1, "--steps", 1, "-o", "out"]
    monkeypatch.setattr(importlib.import_module("dmp_cli.commands.sample.grid"), "MAX_PIXELS", 64)
    assert "--grid 4x4: a picture of 1,024 pixels" in run(*how, code=1).stderr
    assert not Path("out").exists()
    run(*how, "--grid", "1x1", "-q")


def test_ablate_follows_links_in_all_its_commands(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    data = tmp_path / "linked"
    data.symlink_to(images)
    plan = ["ablate", "table2", *backbone, "--data", data, "--dry-run", "--json", "--follow-links"]
    commands = json.dumps(parse(run(*plan)))
    assert commands.count("--follow-links") > 2
