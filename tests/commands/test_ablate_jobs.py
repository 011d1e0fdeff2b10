"""``dmp ablate --jobs``: the same bytes as one after the other, after a kill too, and an arm that fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.improvement import settle_threads

from .conftest import Run

ARMS = '[[arm]]\nname = "plain"\n\n[[arm]]\nname = "tuned"\nmethod = "prompt-tuning"\n'
TINY = ["--backbone", "digits", "--steps", 4, "-n", 70, "--batch-size", 8]
HOW = [*TINY, "--sampling-steps", 2, "--sample-batch-size", 35, "--device", "cpu"]


@pytest.fixture
def command(run: Run) -> list[Any]:
    Path("arms.toml").write_text(ARMS)
    return ["ablate", "arms.toml", *HOW]


def made(folder: Path) -> dict[str, bytes]:
    """What the arms wrote: learnt files, images, and the report, which holds no time."""
    kinds = ("runs/*/*.safetensors", "samples/*/*.png", "report.json", "report.md")
    return {str(path.relative_to(folder)): path.read_bytes() for kind in kinds for path in folder.glob(kind)}


@pytest.mark.slow
def test_two_at_once_write_the_same_bytes_killed_and_continued_too(run: Run, command: list[Any]) -> None:
    run(*command, "-o", "one", "-q")
    assert json.loads(Path("one/ablation.json").read_text())["threads"] == 1
    typed = [sys.executable, "-m", "dmp_cli", *map(str, command), "--jobs", "2", "-o", "two", "-q"]
    process = subprocess.Popen(typed)
    for _ in range(6000):
        if Path("two/runs/tuned-seed0/log.jsonl").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    said = run(*command, "--jobs", 2, "-o", "two").stderr  # at once: what the kill left at work ends by itself
    assert "begin eval scores/seed0 on cpu" in said
    one, two = made(Path("one")), made(Path("two"))
    assert len(one) == 2 + 3 * 71 + 2
    assert two == one
    assert "other settings: threads 1, now 2" in run(*command, "--threads", 2, "-o", "two", code=1).stderr
    record = Path("two/ablation.json")
    older = json.loads(record.read_text())
    del older["threads"]  # as an earlier version began it: each call has the threads of its own
    record.write_text(json.dumps(older))
    run(*command, "--jobs", 2, "-o", "two", "-q")
    assert json.loads(record.read_text()) == older
    assert made(Path("two")) == one


SMALL = ["--own-samples", 40, "--steps", 4, "-n", 70, "--sampling-steps", 2, "--scales", "0.5", "--batch-size", 8]
IMPROVE = ["improve", "--backbone", "digits", *SMALL, "--sample-batch-size", 35, "--device", "cpu"]


def improved(folder: str) -> tuple[dict[str, bytes], Any]:
    """Every image and the learnt file, and what the result says."""
    paths = [*Path(folder).rglob("0*.png"), Path(folder, "negative/adapter-ema/adapter_model.safetensors")]
    result = json.loads(Path(folder, "result.json").read_text())
    told = [result[name] for name in ("scale", "choice", "scores")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}, told


@pytest.mark.slow
def test_improve_writes_the_same_bytes(run: Run) -> None:
    run(*IMPROVE, "-o", "one", "-q")
    run(*IMPROVE, "-o", "two", "-q", "--jobs", 2)
    assert len(improved("one")[0]) >= 2 * 70 + 1
    assert improved("two") == improved("one")


@pytest.mark.slow
def test_improve_on_a_cluster_goes_on_behind_the_choice(run: Run) -> None:
    """Which commands there are is known in two steps, and jobs of the second outlive the call that submitted them."""
    pytest.importorskip("submitit")
    run(*IMPROVE, "-o", "one", "-q")
    typed = [sys.executable, "-m", "dmp_cli", *map(str, IMPROVE), "--cluster", "local", "--jobs", "2", "-o", "two"]
    process = subprocess.Popen([*typed, "-q"])
    for _ in range(9000):
        if Path("two/result").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    assert process.poll() is None
    submitted = json.loads(Path("two/jobs/jobs.json").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(*IMPROVE, "--cluster", "local", "--jobs", 2, "-o", "two", "-q")
    known = json.loads(Path("two/jobs/jobs.json").read_text())
    assert {key: known[key] for key in submitted} == submitted  # nothing was submitted twice, what ran was gone on with
    assert len(known) == len(json.loads(Path("two/done.json").read_text()))
    assert improved("two") == improved("one")


@pytest.mark.slow
def test_an_arm_that_fails_is_named_and_a_signal_lets_all_save(run: Run, command: list[Any]) -> None:
    Path("arms.toml").write_text(ARMS + '\n[[arm]]\nname = "wild"\nmethod = "full"\nlr = 1e30\n')
    said = run(*command, "--jobs", 3, "-o", "out", code=1).stderr
    named = next(line for line in said.splitlines() if line.startswith("error: "))
    assert "wild-seed0" in named.split(": ")[1]  # its training may end before the loss is looked at
    assert "begin eval" not in said
    Path("arms.toml").write_text(ARMS)
    typed = [sys.executable, "-m", "dmp_cli", *map(str, command), "--steps", "100000", "--jobs", "2", "-o", "long"]
    process = subprocess.Popen(typed, stderr=subprocess.PIPE, text=True)
    for _ in range(6000):
        if Path("long/runs/tuned-seed0/log.jsonl").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Ctrl-C: letting " in told
    assert "error: stopped by Ctrl-C; " in told
    assert list(Path("long/runs/tuned-seed0/checkpoints").iterdir())  # it has saved where it stood


def test_folders_keep_their_threads(tmp_path: Path) -> None:
    record = tmp_path / "ablation.json"
    assert settle_threads(record, asked=None, usual=1) == 1
    assert settle_threads(record, asked=3, usual=1) == 3
    record.write_text('{"steps": 4}')  # of an earlier version: those of each call
    assert settle_threads(record, asked=None, usual=1) is None
    record.write_text('{"steps": 4, "threads": 2}')
    assert settle_threads(record, asked=None, usual=1) == 2
    record.write_text("{")  # said where the folder is taken
    assert settle_threads(record, asked=None, usual=1) is None
