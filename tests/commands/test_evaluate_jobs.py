"""``dmp eval`` by several processes, and after a kill: the report is that of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.config import EvalConfig
from dmp_cli.errors import DMPError
from dmp_cli.evaluation.helpers import Helpers
from tests.builders import write_images
from tests.runtime.ports import free_port

from .conftest import Run, files_in


@pytest.fixture
def options(tmp_path: Path) -> list[Any]:
    """Two folders of samples and a reference, of 40 images each: files of eight."""
    real, a, b = (
        write_images(tmp_path / name, count=40, size=3, classes=0, seed=seed)
        for seed, name in enumerate(("real", "a", "b"))
    )
    named = ["--samples", a, "--samples", b, "--reference", real, "--features", "pixels", "--metrics", "fid,kid"]
    return ["eval", *named, "--kid-subset-size", 10, "--batch-size", 2]


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def test_features_do_not_stay(run: Run, options: list[Any], tmp_path: Path) -> None:
    run(*options, "-o", "out")
    assert files_in(tmp_path / "out") == {"report.json", "report.md", "report.html"}


def test_a_loss_is_measured_by_one_process(run: Run, tmp_path: Path) -> None:
    result = run("eval", "--loss", "--val-data", tmp_path, "--patch", "a.safetensors", "--jobs", 2, code=1)
    assert "--jobs 2 is for scores" in result.stderr


@pytest.mark.slow
def test_the_report_does_not_depend_on_the_number_of_jobs(run: Run, options: list[Any], tmp_path: Path) -> None:
    run(*options, "-o", "one", "-q")
    run(*options, "-o", "three", "--jobs", 3, "-q")
    assert report(tmp_path / "one") == report(tmp_path / "three")
    assert (tmp_path / "one" / "report.md").read_bytes() == (tmp_path / "three" / "report.md").read_bytes()
    assert files_in(tmp_path / "three") == {"report.json", "report.md", "report.html"}


@pytest.mark.slow
def test_an_unreadable_image_is_said_once_whoever_finds_it(run: Run, options: list[Any], tmp_path: Path) -> None:
    for number in (1, 9, 17, 25):
        (tmp_path / "b" / f"{number:04d}.png").write_bytes(b"no picture")
    result = run(*options, "-o", "out", "--jobs", 2, "-q", code=1)
    assert "4 of 40 images cannot be read" in result.stderr
    assert result.stderr.count("cannot be read") == 1


@pytest.mark.slow
def test_a_killed_helper_is_said(options: list[Any], tmp_path: Path) -> None:
    config = EvalConfig(samples=(tmp_path / "a",), reference=tmp_path / "real", features="pixels", batch_size=2)
    helpers = Helpers(config, tmp_path / "kept", device="cpu", jobs=2)
    try:
        process = helpers._helpers[0][0]
        process.kill()
        process.join()
        with pytest.raises(DMPError, match=r"a process of --jobs 2 has ended \(SIGKILL\)"):
            helpers.check()
        assert not helpers.are_working()
    finally:
        helpers.end()


def start(options: list[Any], **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dmp_cli", *(str(option) for option in options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **env}, **pipes)  # type: ignore[call-overload, no-any-return]


def launch(options: list[Any]) -> list[tuple[int, str]]:
    """The same command in two processes, as torchrun starts them."""
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [start(options, RANK=str(rank), LOCAL_RANK=str(rank), **meet) for rank in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, out + err) for process, (out, err) in zip(processes, said, strict=True)]


@pytest.mark.slow
def test_two_processes_of_a_launcher_write_the_same_report(run: Run, options: list[Any], tmp_path: Path) -> None:
    run(*options, "-o", "one", "-q")
    found = launch([*options, "-o", "two", "-q"])
    assert [code for code, _ in found] == [0, 0], found
    assert report(tmp_path / "one") == report(tmp_path / "two")
    assert files_in(tmp_path / "two") == {"report.json", "report.md", "report.html"}
    (tmp_path / "b" / "0009.png").write_bytes(b"no picture")  # in the part of the second process
    found = launch([*options, "-o", "two", "--force", "-q"])
    assert [code for code, _ in found] == [1, 1], found
    assert sum("1 of 40 images cannot be read" in said for _, said in found) == 1, found
    assert not any("Traceback" in said for _, said in found)


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_report(run: Run, options: list[Any], tmp_path: Path) -> None:
    # Of 4,000 images the first files are there long before the last.
    more = write_images(tmp_path / "many", count=4000, size=3, classes=0, seed=5)
    common = ["eval", "--samples", more, "--reference", tmp_path / "real", "--features", "pixels", "--batch-size", 2]
    killed = start([*common, "-o", tmp_path / "killed", "--jobs", "2", "-q"])
    while killed.poll() is None and not list((tmp_path / "killed" / "features").glob("*/0001?")):
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    run(*common, "-o", "one", "-q")
    kept = len(files_in(tmp_path / "killed" / "features"))
    assert kept > 5
    run(*common, "-o", "killed", "-q")
    assert report(tmp_path / "one") == report(tmp_path / "killed")
    assert files_in(tmp_path / "killed") == {"report.json", "report.md", "report.html"}
