"""``dmp eval --dry-run``, also with ``--loss``: what it says, and that it ends where the command itself would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmp_cli.evaluation import DigitClassifier
from tests.builders import write_images

from .conftest import Run, files_in, parse


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    write_images(tmp_path / "base", count=6, seed=1)
    write_images(tmp_path / "patched", count=5, seed=2)
    write_images(tmp_path / "real", count=7, seed=3)
    return ["--samples", "base", "--samples", "patched", "--features", "digits"]


def test_a_plan_of_scores(
    run: Run, folders: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["eval", *folders, "--reference", "real", "--save-stats", "real.npz", "--batch-size", "1"]
    before = files_in(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(DigitClassifier, "forward", None)  # no image goes through the network
        plan = parse(run(*how, "--dry-run", "--json"))
        lines = run(*how, "--dry-run").stdout.splitlines()
    assert files_in(tmp_path) == before
    assert plan["samples"] == {"base": 6, "patched": 5}
    assert (plan["reference"]["count"], plan["to_measure"]) == (7, 18)
    assert [line.split()[0] for line in lines] == [
        *("base", "against", "reference", "scores", "device", "memory", "disk", "saves", "files")
    ]
    run(*how, "-q")
    assert {*plan["files"]} == files_in(tmp_path / "scores")
    assert plan["disk"]["statistics"] == pytest.approx(Path("real.npz").stat().st_size, rel=0.1)
    width = len(np.load("real.npz")["mu"])
    assert (
        4 * width * (18 + 7) < plan["disk"]["features"] < 8 * width * (18 + 7)
    )  # the largest twice, as it becomes one
    assert plan["memory"]["peak"] > plan["memory"]["moments"] == 4 * 8 * width * (width + 1)
    said = parse(run("eval", *folders, "--reference", "real.npz", "-o", "other", "--dry-run", "--json"))
    assert (said["reference"], said["to_measure"]) == ({"path": "real.npz", "count": 7, "is_measured": True}, 11)
    np.savez("raw.npz", arr_0=np.zeros((4, 8, 8, 3), np.uint8))
    pixels = ["eval", *folders[:4], "--features", "pixels", "--reference", "raw.npz", "-o", "other", "--dry-run"]
    said = parse(run(*pixels, "--json"))
    assert said["reference"]["count"] == 4
    assert said["memory"]["moments"] == 4 * 8 * 192 * 193  # the size of an image says how many features it has


def test_a_plan_in_several_processes_is_that_of_the_first(
    run: Run, folders: list[str], patch: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["eval", *folders, "--reference", "real", "--dry-run"]
    loss = ["eval", "--loss", "--patch", patch, "--val-data", images, "--dry-run"]
    before, alone = files_in(tmp_path), [run(*words).stdout for words in (how, loss)]
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for words, said in zip((how, loss), alone, strict=True):
        device = next(line for line in said.splitlines() if line.startswith("device"))
        assert run(*words).stdout == said.replace(device, f"{device} in each of 2 processes")
    assert "a launcher has started several already" in run(*how, "--jobs", 2, code=1).stderr
    monkeypatch.setenv("RANK", "1")
    assert [run(*words).stdout for words in (how, loss)] == ["", ""]
    assert files_in(tmp_path) == before


def test_scores_end_where_the_command_would(run: Run, folders: list[str], patch: Path, tmp_path: Path) -> None:
    run("sample", "--patch", patch, "-n", 4, "--steps", 2, "-o", "drawn", "-q", "--device", "cpu")
    write_images(tmp_path / "large", count=4, size=16)
    Path("scores").mkdir()
    Path("scores/report.json").write_text("{}")
    before = files_in(tmp_path)
    digits = ["--features", "digits", "-o", "out"]
    for options, message in (
        (["--samples", "base", "--samples", "gone", "--reference", "real", *digits], "gone does not exist"),
        (["--samples", "base", "--reference", "gone.npz", *digits], "gone.npz does not exist"),
        (
            ["--samples", "drawn", "--reference", "large", "--features", "pixels", "-o", "out"],
            "large holds images of 16x16 pixels",
        ),
        ([*folders, "--reference", "real", "--metrics", "is", "-o", "out"], "Inception score needs"),
        ([*folders, "--reference", "real"], "report.json exists already"),
    ):
        refused = run("eval", *options, "--dry-run", "--json", code=1)
        assert message in refused.stderr, refused.stderr
        assert parse(refused)["output"] in ("out", "scores")
        assert message in run("eval", *options, code=1).stderr
    (tmp_path / "drawn/000001.png").write_bytes(b"changed")
    told = run("eval", "--samples", "drawn", "--reference", "real", *digits, "--dry-run", code=1).stderr
    assert "are not as they were drawn" in told
    assert files_in(tmp_path) == before


def test_a_plan_of_losses(run: Run, patch: Path, images: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "held", count=12, seed=3)
    how = ["eval", "--loss", "--patch", patch, "--val-draws", 40]
    before = files_in(tmp_path)
    plan = parse(run(*how, "--val-data", "held", "--dry-run", "--json"))
    assert (plan["images"], plan["networks"]) == (12, 2)
    shown = run(*how, "--val-data", "held", "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["measures", "device", "images", "files"]
    assert "gone does not exist" in run(*how, "--val-data", "gone", "--dry-run", code=1).stderr
    other = ["--backbone", "digits", "--val-data", "held"]
    assert "another backbone" in run(*how, *other, "--dry-run", code=1).stderr
    assert files_in(tmp_path) == before
    run(*how, "--val-data", "held", "-q")
    assert {*plan["files"]} == files_in(tmp_path / "scores")
