"""Whole commands in two processes: they end together, print each error once, or are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from dmp_cli.cli import app
from tests.builders import tiny_dit, write_images, write_meta_checkpoint

from .ports import free_port


class Pair:
    """Two processes of one command, as torchrun starts them."""

    def __init__(self, folder: Path, *options: Any, command: str = "train") -> None:
        self.folder, self.port, self.command = folder, free_port(), command
        self.processes = [self._start(rank, [str(option) for option in options]) for rank in range(2)]

    def _start(self, rank: int, options: list[str]) -> subprocess.Popen[str]:
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "dmp_cli", self.command, *options],
            cwd=self.folder,
            env={**os.environ, **place, **meet},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> list[tuple[int, str]]:
        outputs = [process.communicate(timeout=120) for process in self.processes]
        return [(p.returncode, said + noted) for p, (said, noted) in zip(self.processes, outputs, strict=True)]

    def wait_for(self, pattern: str) -> None:
        while not list(self.folder.glob(pattern)) and all(p.poll() is None for p in self.processes):
            time.sleep(0.01)


@pytest.fixture
def common(tmp_path: Path) -> list[Any]:
    weights = write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())
    data = write_images(tmp_path / "images")
    named = ["--backbone", weights, "--num-classes", 4, "--num-heads", 2, "--data", data]
    return [*named, "--batch-size", 8, "--micro-batch-size", 2, "--save-every", 10, "--lr", 0.01, "--latent-store"]


@pytest.mark.slow
def test_a_grid_of_spread_weights_that_a_kill_prevented_is_drawn_later(common: list[Any], tmp_path: Path) -> None:
    how = ["--steps", 2, "--sample-every", 2, "--shard-backbone", "-o", "out", "-q"]
    assert [code for code, _ in Pair(tmp_path, *common, *how).finish()] == [0, 0]
    grid = tmp_path / "out" / "samples" / "step-00000002.png"
    expected = grid.read_bytes()
    grid.unlink()
    assert [code for code, _ in Pair(tmp_path, "--resume", "-o", "out", "-q").finish()] == [0, 0]
    assert grid.read_bytes() == expected


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_both_go_on(common: list[Any], tmp_path: Path) -> None:
    pair = Pair(tmp_path, *common, "--steps", 100_000, "-o", "out")
    pair.wait_for("out/checkpoints/step-????????")
    pair.processes[1].kill()
    (code, said), _ = pair.finish()
    assert (code, "another process of this run has ended" in said) == (1, True), said
    assert "Traceback" not in said
    pair = Pair(tmp_path, *common, "--steps", 100_000, "--resume", "-o", "out")
    pair.wait_for("out/log.jsonl")
    time.sleep(1)
    for process in pair.processes:  # in the middle of a step's four micro-batches, most likely
        process.send_signal(signal.SIGTERM)
    (code, said), (other, silence) = pair.finish()
    assert (code, other, silence) == (143, 143, ""), said
    assert "saved, continue with --resume" in said
    assert said.count("SIGTERM: saving step ") == 1  # and the other process is silent
    done = max(int(path.name.removeprefix("step-")) for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert [result[0] for result in Pair(tmp_path, "--resume", "-o", "out", "--steps", done + 7).finish()] == [0, 0]
    alone = [sys.executable, "-m", "dmp_cli", "train", *map(str, common), "--steps", str(done + 7), "-o", "alone"]
    subprocess.run(alone, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    of_two, of_one = (load_file(tmp_path / out / "patch.safetensors") for out in ("out", "alone"))
    for name, value in of_one.items():
        torch.testing.assert_close(of_two[name], value, rtol=2e-2, atol=2e-3)


@pytest.mark.slow
def test_each_error_is_printed_once(common: list[Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    (code, said), (other, silence) = Pair(tmp_path, *common, "--steps", 2, "-o", "out").finish()
    assert (code, other, silence) == (1, 1, "")
    assert "out exists already" in said


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_two_measure_what_one_measures(common: list[Any], tmp_path: Path) -> None:
    """Losses of patches, and what a patch adds on images: the files of one process; an error is said once."""
    runner = CliRunner()
    assert runner.invoke(app, ["train", *map(str, common), "--steps", "2", "-o", str(tmp_path / "run")]).exit_code == 0
    patch, data = tmp_path / "run" / "patch.safetensors", common[common.index("--data") + 1]
    loss = ["--loss", "--patch", patch, "--val-data", data, "--val-draws", 80]
    for command, options in {"eval": loss, "inspect-gates": ["--patch", patch, "--data", data]}.items():
        alone, shared = tmp_path / f"{command}-1", tmp_path / f"{command}-2"
        assert runner.invoke(app, [command, *map(str, options), "-o", str(alone)]).exit_code == 0
        (code, said), other = Pair(tmp_path, *options, "-o", shared, command=command).finish()
        assert (code, other) == (0, (0, "")), said
        assert "wrote" in said
        assert files_of(shared) == files_of(alone)
    results = Pair(tmp_path, *loss, "--patch", "none", "-o", "broken", command="eval").finish()
    assert [code for code, _ in results] == [1, 1]
    assert sum("none" in said for _, said in results) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["demo"],
        ["ablate", "table2", "--backbone", "digits"],
    ],
)
def test_commands_for_one_process_are_refused_in_several(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "runs in one process" in result.stderr
    assert list(tmp_path.iterdir()) == []
