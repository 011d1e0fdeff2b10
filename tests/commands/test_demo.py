"""``dmp demo``: the whole story in its shortest form, its files, and a continued one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmp_cli.demo.story import Story

from .conftest import Run, files_in, parse
from .test_inspect_gates import FILES as LOOK


@pytest.mark.slow  # .ci/run runs it by itself too
def test_the_shortest_demo(run: Run, tmp_path: Path) -> None:
    shown = run("demo", "--steps", 2, "-n", 60, "-o", "out", "--json")
    result = parse(shown)
    story = Story(folder=Path("out"), steps=2, num_images=60)
    assert list(result["scores"]) == [*story.sets(), "real"]
    assert all(score["value"] > 0 for score in result["scores"].values())
    found = files_in(tmp_path / "out")
    for name in story.sets():
        images = {f"samples/{name}/{index:06d}.png" for index in range(60)}
        assert {path for path in found if path.startswith(f"samples/{name}/0")} == images
    tops = {path for path in found if not path.startswith(("samples/", "digits/", "runs/", "own/"))}
    gates = LOOK - {"block-02.png"}  # of two blocks
    scores = {f"scores/report.{kind}" for kind in ("json", "md", "html")}
    assert tops == {"demo.json", "index.html", "before-after.png", "side-by-side.png"} | scores | {
        f"gates/{name}" for name in gates
    }
    page = (tmp_path / "out" / "index.html").read_text()
    for command in ("dmp train --backbone digits", "dmp sample --backbone digits", "dmp eval", "dmp inspect-gates"):
        assert command in page
    assert 'src="http' not in page
    # run again: everything is there, so the same numbers come out and no image is drawn again
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "samples").rglob("0*.png")}
    again = parse(run("demo", "--steps", 2, "-n", 60, "-o", "out", "--json"))
    assert again["scores"] == result["scores"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "other settings: steps 2, now 3" in run("demo", "--steps", 3, "-n", 60, "-o", "out", code=1).stderr
    # a command that fails ends the demo
    about = tmp_path / "out" / "samples" / "dmp" / "samples.json"
    about.write_text(about.read_text().replace('"seed": 0', '"seed": 1'))
    (tmp_path / "out" / "index.html").unlink()
    assert "holds samples made with other settings" in run("demo", "--steps", 2, "-n", 60, "-o", "out", code=1).stderr
    assert not (tmp_path / "out" / "index.html").exists()


def test_force_removes_nothing_but_a_demo(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "notes.txt").write_text("years of work")
    assert "exists already" in run("demo", "--steps", 2, "-n", 60, "-o", "thesis", "--force", code=1).stderr
    assert files_in(tmp_path) == {"thesis/notes.txt"}


def test_dry_run_shows_the_commands(run: Run, tmp_path: Path) -> None:
    commands = parse(run("demo", "--dry-run", "--json"))["commands"]
    assert len([command for command in commands if command.startswith("dmp train")]) == 4
    assert len([command for command in commands if command.startswith("dmp sample")]) == 9
    assert not files_in(tmp_path)


@pytest.mark.slow
def test_a_signal_ends_the_demo_and_it_goes_on_to_the_same_scores(run: Run, tmp_path: Path) -> None:
    options = ["demo", "--steps", "80", "-n", "60"]
    command = [sys.executable, "-m", "dmp_cli", *options, "-o", "parts"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "parts" / "runs" / "full" / "log.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "saved, continue with --resume" in errors
    assert not (tmp_path / "parts" / "samples").exists()
    parts = parse(run(*options, "-o", "parts", "--jobs", 2, "--json"))
    assert parts["scores"] == parse(run(*options, "-o", "straight", "--json"))["scores"]
    images = [path.relative_to("straight") for path in Path("straight", "samples").rglob("0*.png")]
    assert len(images) == 60 * len(Story(folder=Path("straight"), steps=80, num_images=60).sets())
    assert all(Path("parts", image).read_bytes() == Path("straight", image).read_bytes() for image in images)
