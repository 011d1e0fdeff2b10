"""``dmp eval --loss``: the numbers of the run itself, for any number of patches, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders import write_images

from .conftest import Run, files_in, parse


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_images(tmp_path / "other", count=12, seed=3)


@pytest.fixture
def trained(run: Run, backbone: list[str], images: Path, other: Path) -> Path:
    how = ["--batch-size", 4, "--lr", 0.01, "--sample-every", 0, "--val-data", other, "--val-draws", 40, "-q"]
    run("train", *backbone, "--data", images, "--steps", 3, "--seed", 5, *how, "-o", "run")
    return Path("run/patch.safetensors")


def test_it_gives_the_numbers_of_the_run(run: Run, trained: Path, patch: Path, other: Path, tmp_path: Path) -> None:
    found = parse(
        run("eval", "--loss", "--patch", trained, "--patch", patch, "--val-data", other, "--val-draws", 40, "--json")
    )
    lines = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "held_out" in line)
    assert last["step"] == 3
    assert found["patches"][str(trained)] == last["held_out"]
    assert found["patches"][str(patch)]["base"] == last["held_out"]["base"]
    assert found["patches"][str(patch)]["difference"] != last["held_out"]["difference"]
    assert files_in(tmp_path / "scores") == {"loss.json", "loss.html"}
    written = json.loads(Path("scores/loss.json").read_text())
    assert written["patches"] == found["patches"]
    page = Path("scores/loss.html").read_text()
    assert "2 patches and the bare backbone" in page
    assert f"By timestep: {trained}" in page


def test_what_other_methods_learnt(run: Run, backbone: list[str], images: Path, other: Path, patch: Path) -> None:
    """On the draws of the run itself, beside a patch or alone, each in a backbone of its own."""
    measured = ["--val-data", other, "--val-draws", 40]
    files = {"lora": "adapter", "dora": "adapter", "bitfit": "tuned.safetensors", "difffit": "tuned.safetensors"}
    for method in files:
        how = ["--steps", 2, "--batch-size", 4, "--lr", 0.05, "--sample-every", 0, *measured, "-q"]
        run("train", *backbone, "--data", images, "--method", method, *how, "-o", method)
    paths = {method: f"{method}/{file}" for method, file in files.items()}
    words = [word for path in paths.values() for word in ("--adapter", path)]
    found = parse(run("eval", "--loss", *backbone, *words, *measured, "--json"))["patches"]
    for method, path in paths.items():
        lines = [json.loads(line) for line in (Path(method) / "log.jsonl").read_text().splitlines()]
        assert found[path] == [line["held_out"] for line in lines if "held_out" in line][-1]
        assert found[path]["difference"] != 0
    assert "4 adapters and the bare backbone" in Path("scores/loss.html").read_text()
    mixed = ["--patch", patch, "--adapter", paths["difffit"], "-o", "mixed"]
    again = parse(run("eval", "--loss", *mixed, *measured, "--json"))["patches"]
    assert again[paths["difffit"]] == found[paths["difffit"]]
    assert again.keys() == {str(patch), paths["difffit"]}
    assert "1 patch, 1 adapter and the bare backbone" in Path("mixed/loss.html").read_text()
    shown = run("eval", "--loss", "--adapter", paths["lora"], *measured, "-o", "x", code=1).stderr
    assert "no backbone given for --adapter" in shown
    known = ["--adapter", paths["bitfit"], "--val-data", images, "--val-draws", 20, "-o", "known"]
    assert "was trained on these images" in run("eval", "--loss", *backbone, *known).stderr


def test_bad_input(run: Run, patch: Path, other: Path, images: Path) -> None:
    def message(*words: Any, code: int = 1) -> str:
        return " ".join(run("eval", *words, "-o", "out", code=code).stderr.split())

    assert "nothing to measure" in message("--loss", "--patch", patch)
    assert "nothing to measure" in message("--loss", "--val-data", other)
    assert "--samples does not go with --loss" in message("--loss", "--patch", patch, "--samples", other)
    assert "--patch goes with --loss only" in message("--patch", patch, "--samples", other, "--reference", other)
    warned = message("--loss", "--patch", patch, "--val-data", images, "--val-draws", 20, code=0)
    assert "was trained on these images" in warned
    assert "exists already" in message("--loss", "--patch", patch, "--val-data", other)
    assert not Path("elsewhere").exists()
