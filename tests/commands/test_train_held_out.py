"""``dmp train --val-data | --val-split``: the log, the page, what is kept, what ends a run, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.builders import write_images

from .conftest import Run, files_in

PLAIN = ["--batch-size", 4, "--lr", 0.01, "--sample-every", 0, "--no-flip", "-q"]
QUICK = [*PLAIN, "--val-draws", 40]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", count=40)


def measured(folder: str) -> dict[int, Any]:
    lines = map(json.loads, Path(folder, "log.jsonl").read_text().splitlines())
    return {line["step"]: line["held_out"] for line in lines if "held_out" in line}


def tensors(path: str) -> dict[str, Any]:
    return {name: value.tolist() for name, value in load_file(path).items()}


def test_a_split_is_not_trained_on_and_measured_all_along(run: Run, backbone: list[str], data: Path) -> None:
    split = ["--val-split", 0.2, "--val-every", 2]
    run("train", *backbone, "--data", data, "--steps", 5, *QUICK, *split, "-o", "run")
    assert list(measured("run")) == [0, 2, 4, 5]
    assert measured("run")[0]["difference"] == 0
    assert measured("run")[5]["difference"] != 0
    files = {name for name in files_in(Path("run")) if not name.startswith("checkpoints/")}
    assert files == {"config.json", "log.jsonl", "run.toml", "patch.safetensors", "held-out.html"}
    page = Path("run/held-out.html").read_text()
    assert "After step 5 the loss on held-out images is" in page
    assert "900 to 999" in page
    # the same values are learnt from a folder that never had the held-out images
    from dmp_cli.data import find_images, hold_out

    images = find_images(data)
    rest = shutil.copytree(data, "rest")
    for index in hold_out(images, 0.2)[1]:
        (rest / Path(images.name(index)).relative_to(data)).unlink()
    run("train", *backbone, "--data", rest, "--steps", 5, *PLAIN, "-o", "bare")
    assert tensors("run/patch.safetensors") == tensors("bare/patch.safetensors")


def test_other_images_change_nothing_that_is_learnt(run: Run, backbone: list[str], data: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "other", count=12, seed=3)
    common = ["train", *backbone, "--data", data, "--steps", 4, *QUICK]
    run("train", *backbone, "--data", data, "--steps", 4, *PLAIN, "-o", "bare")
    run(*common, "--val-data", other, "--val-every", 1, "-o", "measured")
    assert Path("bare/patch.safetensors").read_bytes() == Path("measured/patch.safetensors").read_bytes()
    # stopped and continued: the same measurements; what was said about them may change
    run(*common, "--val-data", other, "--val-every", 1, "--steps", 2, "-o", "parts")
    run("train", "--resume", "-o", "parts", "--steps", 4, "-q")
    assert measured("parts") == measured("measured")
    run("train", "--resume", "-o", "parts", "--steps", 5, "--val-draws", 30, "--val-every", 5, "-q")
    write_images(tmp_path / "another", count=13, seed=4)
    refused = run("train", "--resume", "-o", "parts", "--steps", 6, "--val-data", "another", code=1).stderr
    assert "holds a run with other settings: held-out fingerprint" in refused


def test_patience_ends_the_run(run: Run, backbone: list[str], data: Path) -> None:
    common = ["train", *backbone, "--data", data, *PLAIN[:-1], "--val-draws", 40, "--val-split", 0.2, "--val-every", 1]
    common += ["--lr", 1e-12]
    shown = run(*common, "--steps", 30, "--keep-best", "--patience", 2, "-o", "run", "--json")
    assert list(measured("run")) == [0, 1, 2]  # nothing is learnt at such a rate, so nothing is lower than at step 0
    assert json.loads(shown.stdout)["steps"] == 2
    said = "ended after step 2: 2 measurements in a row did not lower the held-out loss of step 0"
    assert said in " ".join(shown.stderr.split())
    assert not Path("run/patch-best.safetensors").exists()
    # it is over: going on does nothing, unless more patience is asked for
    before = Path("run/patch.safetensors").read_bytes()
    run("train", "--resume", "-o", "run", "-q")
    assert Path("run/patch.safetensors").read_bytes() == before
    assert list(measured("run")) == [0, 1, 2]
    run("train", "--resume", "-o", "run", "--patience", 20, "--steps", 4, "-q")
    assert list(measured("run")) == [0, 1, 2, 3, 4]


def test_the_best_is_kept(run: Run, backbone: list[str], data: Path) -> None:
    common = ["train", *backbone, "--data", data, *QUICK, "--val-split", 0.2, "--val-every", 2, "--lr", 0.1]
    run(*common, "--steps", 4, "--keep-best", "-o", "run")
    losses = {step: entry["loss"] for step, entry in measured("run").items()}
    assert min(losses, key=lambda step: losses[step]) == 4
    assert tensors("run/patch-best.safetensors") == tensors("run/patch.safetensors")
    run("train", "--resume", "-o", "run", "--steps", 5, "-q")
    run(*common, "--steps", 5, "-o", "again", "--force")
    assert tensors("again/patch.safetensors") == tensors("run/patch.safetensors")


def test_bad_input(run: Run, backbone: list[str], data: Path, tmp_path: Path) -> None:
    def message(*words: Any) -> str:
        found = run("train", *backbone, "--data", data, "--steps", 2, *QUICK, *words, "-o", "out", code=1).stderr
        return " ".join(found.split())

    assert "--val-data and --val-split: give one of both" in message("--val-data", data, "--val-split", 0.1)
    assert "--patience needs held-out images" in message("--patience", 3)
    assert "--keep-best needs held-out images" in message("--keep-best")
    assert "held-out images are trained on too" in message("--val-data", data)
    assert "too few for 10 bands" in message("--val-split", 0.2, "--val-draws", 9)
    assert "holds out none" in message("--val-split", 0.01)
    wrong = write_images(tmp_path / "wrong", count=6, classes=3, seed=8)
    assert "4 classes, the data has 3" in message("--val-data", wrong)
    for name in ("0", "1", "2", "3"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "x.png").write_bytes(b"no picture")
    assert "x.png" in message("--val-data", tmp_path / "broken")
    assert not Path("out").exists()
