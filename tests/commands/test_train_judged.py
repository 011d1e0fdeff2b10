"""``dmp train``: parts of the held-out images, other draws, the loss of each draw, and an onlooker that ends a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from dmp_cli.cli import app
from dmp_cli.commands.in_process import Onlooker, run_inside
from tests.builders import write_images

from .conftest import Run

SPLIT = ["--val-split", 0.4, "--val-draws", 40, "--val-every", 1, "--val-losses"]
QUICK = ["--batch-size", 4, "--sample-every", 0, "--no-flip", "--device", "cpu", *SPLIT]


@pytest.fixture
def how(run: Run, backbone: list[str], tmp_path: Path) -> list[Any]:
    return ["train", *backbone, "--data", write_images(tmp_path / "data", count=40), "--lr", 0.01, *QUICK]


def draws_of(folder: str) -> list[dict[str, str]]:
    with open(Path(folder, "held-out.csv"), newline="") as table:
        return list(csv.DictReader(table))


def logged(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


def test_parts_of_the_held_out_images(run: Run, how: list[Any]) -> None:
    for part in (1, 2):
        run(*how, "--steps", 2, "--val-part", f"{part}/2", "-o", f"part{part}", "-q")
    # what is learnt and written of it is the same, but what is measured is not
    assert Path("part1/patch.safetensors").read_bytes() == Path("part2/patch.safetensors").read_bytes()
    losses = [logged(f"part{part}")[-2]["held_out"]["loss"] for part in (1, 2)]
    assert losses[0] != losses[1]
    # the table holds what the means were taken of
    rows, held_out = draws_of("part1"), logged("part1")[-2]["held_out"]
    for column, name in (("loss", "loss"), ("bare", "base")):
        assert sum(float(row[column]) for row in rows) / 40 == pytest.approx(held_out[name], rel=1e-12)
    assert {int(row["image"]) for row in rows} == set(range(8))  # 16 of 40 are held out, half of them measured
    run(*how, "--steps", 2, "--val-seed", 3, "--val-part", "1/2", "-o", "seeded", "-q")
    assert draws_of("seeded") != rows
    other = run(*how, "--steps", 3, "--val-part", "2/2", "-o", "part1", "--resume", code=1).stderr
    assert "holds a run with other settings: val-part 0,2, now 1,2" in other
    assert "there are 16 held-out images only" in run(*how, "--val-part", "17/20", "-o", "none", code=1).stderr
    bare = how[: how.index("--val-split")]
    assert "--val-part needs held-out images" in run(*bare, "--val-part", "1/2", "-o", "none", code=1).stderr


class EndsAt(Onlooker):
    def __init__(self, step: int) -> None:
        self.step, self.told = step, []

    def judge(self, step: int, loss: float) -> str:
        self.told.append((step, loss))
        return f"enough at step {step}" if step == self.step else ""


def test_an_onlooker_ends_a_run_and_is_told_the_same_again(run: Run, how: list[Any]) -> None:
    dmp = typer.main.get_command(app)
    command = [str(word) for word in (*how, "--steps", 5, "-o", "run", "--resume")]
    first, again = EndsAt(2), EndsAt(2)
    run_inside(command, dmp, onlooker=first)
    assert [step for step, _ in first.told] == [0, 1, 2]
    assert logged("run")[-1] == {"step": 2, "ended": "enough at step 2"}
    before = Path("run/patch.safetensors").read_bytes()
    run_inside(command, dmp, onlooker=again)
    assert again.told == first.told
    assert Path("run/patch.safetensors").read_bytes() == before
    never = EndsAt(9)  # without the verdict it goes on, and learns what it would have learnt
    run_inside(command, dmp, onlooker=never)
    run(*how, "--steps", 5, "-o", "straight", "-q")
    assert Path("run/patch.safetensors").read_bytes() == Path("straight/patch.safetensors").read_bytes()
    wild = EndsAt(9)
    with pytest.raises(typer.Exit):
        run_inside([*command, "--lr", "1e30", "-o", "wild", "--max-bad-steps", "0"], dmp, onlooker=wild)
    assert "not all finite" in (wild.diverged or "")
