"""Classes of ``dmp train``: the mapping is printed and kept in all that comes of it, and earlier runs keep theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmp_cli.patching.file import load_patch
from tests.builders import write_images

from .conftest import Run

FOLDERS = ["9", "10", "100", "11"]  # as numbers: 9, 10, 11, 100; as text: 10, 100, 11, 9
NUMBERS, TEXT = sorted(FOLDERS, key=int), sorted(FOLDERS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight pictures in four class folders that are numbers."""
    path = write_images(tmp_path / "data")
    for before, after in zip("0123", FOLDERS, strict=True):
        (path / before).rename(path / after)
    return path


def prompts_of(name: str) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in load_file(Path(name) / "patch.safetensors").values()])


def common(backbone: list[str], data: Path, steps: int, out: str) -> list[str]:
    return [
        "train",
        *backbone,
        "--data",
        str(data),
        "--batch-size",
        "4",
        "--steps",
        str(steps),
        "--lr",
        "0.1",
        "-o",
        out,
    ]


def test_the_mapping_is_said_and_kept(run: Run, backbone: list[str], data: Path) -> None:
    said = run(*common(backbone, data, 2, "run"))
    assert "classes: 0 9, 1 10, 2 11, 3 100" in said.stderr
    assert json.loads(Path("run/config.json").read_text())["images"]["classes"] == NUMBERS
    record = load_patch(Path("run/patch.safetensors")).record
    assert record is not None
    assert record.training is not None
    assert record.training["classes"] == NUMBERS
    run("sample", "--patch", "run/patch.safetensors", "-n", 4, "--steps", 2, "-o", "drawn", "-q")
    assert json.loads(Path("drawn/samples.json").read_text())["origin"]["classes"] == NUMBERS


def test_another_order_learns_other_things_and_cannot_continue(run: Run, backbone: list[str], data: Path) -> None:
    Path("names.txt").write_text("\n".join(TEXT))
    run(*common(backbone, data, 2, "numbers"), "-q")
    run(*common(backbone, data, 2, "text"), "--class-names", "names.txt", "-q")
    assert not torch.equal(prompts_of("numbers"), prompts_of("text"))
    failed = run("train", "--resume", "-o", "numbers", "--steps", 4, "--class-names", "names.txt", "-q", code=1)
    assert "images classes 9,10,11,100, now 10,100,11,9" in failed.stderr
    run("train", "--resume", "-o", "text", "--steps", 4, "-q")
    (data / "classes.txt").write_text("\n".join(NUMBERS))  # later: the run keeps what it has recorded
    run("train", "--resume", "-o", "text", "--steps", 6, "-q")
    (data / "classes.txt").unlink()
    run(*common(backbone, data, 6, "straight"), "--class-names", "names.txt", "-q")
    assert torch.equal(prompts_of("text"), prompts_of("straight"))


def test_a_run_of_before_keeps_the_order_of_before(run: Run, backbone: list[str], data: Path) -> None:
    Path("names.txt").write_text("\n".join(TEXT))
    run(*common(backbone, data, 6, "straight"), "--class-names", "names.txt", "-q")
    run(*common(backbone, data, 2, "old"), "--class-names", "names.txt", "-q")
    settings = json.loads(Path("old/config.json").read_text())
    settings["options"].pop("class_names")
    for key in ("rules", "classes"):
        settings["images"].pop(key)
    for key in ("max_pixels", "class_names"):
        settings["train"].pop(key)
    Path("old/config.json").write_text(json.dumps(settings))
    for _ in range(2):  # and so does the run that it becomes
        said = run("train", "--resume", "-o", "old", "--steps", 6)
        assert "classes: 0 10, 1 100, 2 11, 3 9" in said.stderr
    assert torch.equal(prompts_of("old"), prompts_of("straight"))
    assert json.loads(Path("old/config.json").read_text())["images"] == settings["images"]
    record = load_patch(Path("old/patch.safetensors")).record
    assert record is not None
    assert not {"classes", "data_rules"} & set(record.training or {})
    failed = run("train", "--resume", "-o", "old", "--steps", 8, "--class-names", "names.txt", code=1)
    assert "this run was begun before classes could be named" in failed.stderr
