"""Two commands on one folder at once: the second is told who holds it, the first ends as if it had been alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.builders import write_images

from .conftest import Run, files_in

pytestmark = pytest.mark.slow

BEGIN = "from dmp_cli.cli import app; import torch, sys; print('ready', flush=True); sys.stdin.readline(); app()"
LONG = 150  # steps: some seconds, in which the other one comes


def start(*words: Any) -> subprocess.Popen[str]:
    """A command that has imported all it needs and waits for a line to begin."""
    code, environment = [sys.executable, "-c", BEGIN], {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*code, *map(str, words)], env=environment, text=True, **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == "ready\n"
    return process  # type: ignore[no-any-return]


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def at_once(one: list[Any], other: list[Any]) -> tuple[str, str]:
    """Begin two commands together; the messages of the one that ended well, and of the one that was refused."""
    processes = [start(*one), start(*other)]
    for process in processes:
        begin(process)
    ends = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert sorted(code for _, code in ends) == [0, 1], ends
    said = {code: text for text, code in ends}
    return said[0], said[1]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """What a folder holds, without what says when and for how long it was made."""
    timed = {"log.jsonl"}
    return {name: (folder / name).read_bytes() for name in files_in(folder) - timed}


def training(backbone: list[str], images: Path, out: str) -> list[Any]:
    return [
        "train",
        *backbone,
        "--data",
        images,
        "--steps",
        LONG,
        "--batch-size",
        4,
        "--sample-every",
        0,
        "-o",
        out,
        "-q",
    ]


def lines_of(log: Path) -> int:
    return len(log.read_text().splitlines())


def test_two_trainings(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    command = training(backbone, images, "both")
    _, refused = at_once([*command, "--log-every", 1], [*command, "--log-every", 1])
    assert "both is in use: dmp train holds it (host " in refused
    assert "nothing was changed" in refused
    run(*training(backbone, images, "alone"), "--log-every", 1)
    assert bytes_of(tmp_path / "both").keys() == bytes_of(tmp_path / "alone").keys()
    learnt = "patch.safetensors"
    assert (tmp_path / "both" / learnt).read_bytes() == (tmp_path / "alone" / learnt).read_bytes()
    assert lines_of(tmp_path / "both" / "log.jsonl") == lines_of(tmp_path / "alone" / "log.jsonl") == LONG


def test_force_against_a_training(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    first = start(*training(backbone, images, "both"), "--save-every", 5)
    begin(first)
    ends = time.monotonic() + 60
    while not list(tmp_path.glob("both/checkpoints/step-0000001?")) and time.monotonic() < ends:
        time.sleep(0.01)
    assert first.poll() is None
    before = files_in(tmp_path / "both")
    refused = run(*training(backbone, images, "both"), "--force", code=1)
    assert "both is in use: dmp train holds it (host " in refused.stderr
    assert f"pid {first.pid}" in refused.stderr
    assert {"config.json", "log.jsonl"} & before <= files_in(tmp_path / "both")
    assert first.wait(timeout=300) == 0
    run(*training(backbone, images, "alone"), "--save-every", 5)
    assert bytes_of(tmp_path / "both").keys() == bytes_of(tmp_path / "alone").keys()
    for name in ("patch.safetensors", f"checkpoints/step-{LONG:08d}/optimizer.safetensors"):
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_two_evals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("real", "drawn")):
        write_images(tmp_path / name, classes=0, count=400, seed=seed)
    command = ["eval", "--samples", "drawn", "--reference", "real", "--features", "pixels", "--metrics", "fid,kid"]
    command += ["--bootstrap", 60, "-q"]
    _, refused = at_once([*command, "-o", "both"], [*command, "-o", "both"])
    assert "both is in use: dmp eval holds it (host " in refused
    alone = start(*command, "-o", "alone")  # in one thread, as the others: sums have an order
    begin(alone)
    assert alone.wait(timeout=300) == 0
    assert files_in(tmp_path / "both") == files_in(tmp_path / "alone") == {"report.html", "report.json", "report.md"}
    assert (tmp_path / "both/report.json").read_bytes() == (tmp_path / "alone/report.json").read_bytes()


def test_two_ablations(run: Run, tmp_path: Path) -> None:
    (tmp_path / "arms.toml").write_text('[[arm]]\nname = "dmp"\n')
    command = ["ablate", "arms.toml", "--backbone", "digits", "--steps", 3, "-n", 60, "--sampling-steps", 2, "-q"]
    _, refused = at_once([*command, "-o", "both"], [*command, "-o", "both"])
    assert "both is in use: dmp ablate holds it (host " in refused
    run(*command, "-o", "alone")
    both, alone = bytes_of(tmp_path / "both"), bytes_of(tmp_path / "alone")
    assert both.keys() == alone.keys()
    assert both["report.json"] == alone["report.json"]
    assert all(both[name] == alone[name] for name in both if name.endswith((".png", "patch.safetensors")))


def test_two_parts_that_finish_at_once(run: Run, patch: Path, tmp_path: Path) -> None:
    command = ["sample", "--patch", patch, "-n", 24, "--batch-size", 2, "--steps", 5, "-q"]
    parts = [start(*command, "--shard", f"{part}/2", "-o", "both") for part in (1, 2)]
    for part in parts:
        begin(part)
    for part in parts:
        said = part.communicate(timeout=300)
        assert part.returncode == 0, said
    assert "are as they were written" in run("sample", "--verify", "-o", "both").stdout
    run(*command, "-o", "alone")
    for name in (f"{index:06d}.png" for index in range(24)):
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_the_same_part_twice_is_refused(run: Run, patch: Path, tmp_path: Path) -> None:
    command = ["sample", "--patch", patch, "-n", 64, "--batch-size", 2, "--steps", 50, "-q", "-o", "both"]
    _, refused = at_once(command, command)
    assert "both is in use: dmp sample holds it (host " in refused
    assert "are as they were written" in run("sample", "--verify", "-o", "both").stdout
    assert not [name for name in files_in(tmp_path / "both") if "owner" in name or "partial" in name]
