"""What one sees of a command while it goes on, and at its end."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.commands import console
from dmp_cli.commands.console import Printer
from dmp_cli.commands.train.pace import Pace
from dmp_cli.config import CommonOptions
from dmp_cli.data import find_images
from dmp_cli.runtime import counting, progress, watched
from dmp_cli.training import Progress
from tests.builders import write_images
from tests.data.shard_files import write_shards

from .conftest import Run


def test_the_bar_has_loss_and_speed_from_the_first_steps() -> None:
    seconds = iter([10.0, 12.0, 14.0, 16.0])
    pace = Pace(8, now=lambda: next(seconds))
    said = [pace.remark(Progress(step, {"loss": torch.tensor(1.0 / step)})) for step in (41, 42, 43, 44)]
    assert said == [
        "loss 0.0244",
        "loss 0.0238  4.0 images/s",
        "loss 0.0238  4.0 images/s",
        "loss 0.0227  4.0 images/s",
    ]


def test_bars_stand_below_each_other_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    printer = Printer(CommonOptions())
    assert printer._notes.is_terminal
    with printer.watching(), printer.progress("sample", 4, done=1) as outer:
        from dmp_cli.runtime import tracking

        with tracking("step", 50) as inner:
            inner(20, "")
            outer(2, "")
        outer(4, "all of it")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"sample .* 1/4 .*left *\nstep .* 0/50 .*left", shown)


def test_without_a_terminal_there_are_lines(capsys: Any) -> None:
    printer = Printer(CommonOptions())
    with printer.watching(), printer.progress("train", 2) as advance:
        advance(1, "loss 1")
        advance(2, "loss 0.5")
    assert capsys.readouterr().err == "train 2/2 loss 0.5\n"


@pytest.mark.slow
def test_the_end_says_what_was_learnt_how_good_it_is_and_what_comes_next(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    train = ["train", *backbone, "--data", images, "--steps", 2, "--batch-size", 4]
    first, second, third = run(*train, "-o", "out").stdout.splitlines()
    assert re.fullmatch(r"wrote out/patch.safetensors: [\d,]+ parameters, 2 steps", first)
    assert re.fullmatch(r"loss \d\.\d{4} on the images trained on; --val-split holds some out", second)
    assert third == "next: dmp sample --patch out/patch.safetensors -n 16"
    write_images(tmp_path / "held", seed=5)
    held = run(*train, "--val-data", "held", "--val-draws", 20, "-o", "held-out").stdout.splitlines()[1]
    assert re.match(
        r"held-out loss \d\.\d{6}, (better|worse|not told) .* \(95 % [+-]\d\.\d{6} to [+-]\d\.\d{6}\)", held
    )
    full = run(*train, "--method", "full", "-o", "full").stdout.splitlines()[-1]
    assert full == "next: dmp sample --backbone full/backbone.safetensors -n 16"
    lora = run(*train, "--method", "lora", "-o", "lora").stdout.splitlines()[-1]
    assert sorted(shlex.split(lora)) == sorted(
        ["next:", "dmp", "sample", *backbone, "--adapter", "lora/adapter", "-n", "16"]
    )
    drawn = run("sample", "--patch", "out/patch.safetensors", "-n", 2, "--steps", 2, "-o", "drawn")
    assert drawn.stdout.splitlines()[-1] == "next: dmp eval --samples drawn --reference REAL_IMAGES"
    scored = run("eval", "--samples", "drawn", "--reference", images, "--features", "pixels", "-o", "scores")
    assert "measure drawn 2/2" in scored.stderr


def test_a_listing_is_shown_once_it_takes_a_second(capsys: Any) -> None:
    moments = iter([0.0, 0.5, 1.1, 1.15, 1.3])
    told: list[tuple[str, int, int]] = []

    @contextlib.contextmanager
    def watch(title: str, total: int) -> Iterator[Any]:
        yield lambda done, remark: told.append((title, total, done))

    with watched.given(watch), counting("list photos", now=lambda: next(moments)) as count:
        for done in (10, 20, 30, 40):
            count(done)
    assert told == [("list photos", 0, 20), ("list photos", 0, 40)]
    with counting("list photos", now=lambda: 9.0) as count:  # nobody watches
        count(1)


@pytest.mark.parametrize(
    ("kind", "last"), [("folder", "list images 1"), ("zip", "list photos.zip 1"), ("shards", "list shards 2/2")]
)
def test_listings_are_counted_and_small_ones_not_shown(
    kind: str, last: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    place = images
    if kind == "zip":
        place = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", images))
    elif kind == "shards":
        place = write_shards(tmp_path / "shards", [2, 2])
    with Printer(CommonOptions()).watching():
        find_images(place)
    assert capsys.readouterr().err == ""
    show_at_once(monkeypatch)
    with Printer(CommonOptions()).watching():
        find_images(place)
    assert last in capsys.readouterr().err


def show_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SOON", -1.0)
    monkeypatch.setattr(progress, "_BETWEEN", 0.0)
    monkeypatch.setattr(console, "_PLAIN_INTERVAL", 0.0)


def test_a_training_and_its_plan_show_the_listing(
    run: Run, backbone: list[str], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", *backbone, "--data", images, "--steps", 1, "--batch-size", 2, "-o", "out"]
    assert "list" not in run(*train, "--dry-run").stderr
    show_at_once(monkeypatch)
    assert "list images 1" in run(*train, "--dry-run").stderr
    assert "list images" not in run(*train, "--dry-run", "-q").stderr
    assert "list images 1" in run(*train).stderr


def test_a_count_without_an_end_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with Printer(CommonOptions()).progress("list photos", 0) as advance:
        advance(1234, "")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"list photos .* 1234/\?", shown)
