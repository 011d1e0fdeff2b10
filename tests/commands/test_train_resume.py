"""``dmp train --resume``: a run that was stopped, killed or damaged ends with the bytes of a straight one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmp_cli.patching.file import load_patch

from .conftest import Run, files_in
from .train_runs import recipe

LEARNT = {"dmp": "patch{}.safetensors", "full": "backbone{}.safetensors", "lora": "adapter{}/adapter_model.safetensors"}
LEARNT |= {"dora": LEARNT["lora"], "bitfit": "tuned{}.safetensors", "difffit": "tuned{}.safetensors"}
STOPS = [(method, first) for method in LEARNT for first in ((1, 4, 7) if method in ("dmp", "full", "lora") else (4,))]


@pytest.mark.parametrize(("method", "first"), STOPS)
def test_resume_is_bit_for_bit(
    method: str, first: int, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    common = ["train", *backbone, "--method", method]
    run(*common, *recipe(images, steps=10, out="straight"))
    run(*common, *recipe(images, steps=first, out="parts"))
    run("train", "--resume", "-o", "parts", "--steps", 10, "-q")
    for name in (LEARNT[method].format(average) for average in ("", "-ema")):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_trains_and_resumes(
    dtype: str, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    common = ["train", *backbone, "--data", images, "--batch-size", 4, "--dtype", dtype, "-q"]
    run(*common, "--steps", 4, "-o", "straight")
    run(*common, "--steps", 2, "-o", "parts")
    run(*common, "--steps", 4, "-o", "parts", "--resume")
    straight = (tmp_path / "straight" / "patch.safetensors").read_bytes()
    assert (tmp_path / "parts" / "patch.safetensors").read_bytes() == straight


def test_a_folder_that_is_called_like_a_method_is_not_taken_for_it(run: Run, images: Path, backbone: list[str]) -> None:
    Path("constant").mkdir()
    how = ["--data", images, "--batch-size", 4, "--lr-schedule", "constant", "-q"]
    run("train", *backbone, *how, "--method", "bitfit", "--steps", 1, "-o", "bitfit")
    run("train", "--resume", "--steps", 2, "-o", "bitfit", "-q")
    options = json.loads(Path("bitfit/config.json").read_text())["options"]
    assert (options["method"], options["lr_schedule"], options["data"]) == ("bitfit", "constant", str(images))


def test_the_attention_gate_with_noise_resumes_bit_for_bit(run: Run, images: Path, backbone: list[str]) -> None:
    how = [*backbone, "--data", images, "--batch-size", 4, "--gate", "attention", "--gate-noise", "--lr", 0.1, "-q"]
    run("train", *how, "--steps", 4, "-o", "straight")
    run("train", *how, "--steps", 2, "-o", "stopped")
    run("train", "--resume", "--steps", 4, "-o", "stopped", "-q")
    assert Path("straight/patch.safetensors").read_bytes() == Path("stopped/patch.safetensors").read_bytes()
    run("inspect-gates", "--patch", "straight/patch.safetensors", "-o", "gates", "-q")
    assert "attention gate" in run("patch", "--info", "straight/patch.safetensors").stdout


def start_training(backbone: list[str], images: Path, out: Path, *, steps: int) -> subprocess.Popen[str]:
    options = ["--data", str(images), "--steps", str(steps), "--batch-size", "4", "--save-every", "5"]
    command = [sys.executable, "-m", "dmp_cli", "train", *backbone, *options, "-o", str(out), "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def states(out: Path) -> set[str]:
    return {path.name for path in (out / "checkpoints").glob("step-????????")}


def wait_for_state(out: Path, process: subprocess.Popen[str], *, before: frozenset[str] = frozenset()) -> None:
    while not states(out) - before and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on(
    number: signal.Signals, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    process = start_training(backbone, images, tmp_path / "out", steps=100_000)
    wait_for_state(tmp_path / "out", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "saved, continue with --resume" in errors
    assert "Traceback" not in errors
    record = load_patch(tmp_path / "out" / "patch.safetensors").record
    assert record is not None
    assert record.training is not None
    done = record.training["steps_done"]
    run("train", "--resume", "-o", "out", "--steps", done + 3, "-q")
    run(
        *("train", *backbone, "--data", images, "--steps", done + 3, "--batch-size", 4, "--save-every", 5),
        *("-o", "straight", "-q"),
    )
    straight = (tmp_path / "straight" / "patch.safetensors").read_bytes()
    assert (tmp_path / "out" / "patch.safetensors").read_bytes() == straight


@pytest.mark.slow
def test_kill_9_three_times_ends_with_the_same_bytes(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    for delay in (0.0, 0.007, 0.015):
        before = frozenset(states(tmp_path / "out"))
        process = start_training(backbone, images, tmp_path / "out", steps=100_000)
        wait_for_state(tmp_path / "out", process, before=before)
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert states(tmp_path / "out") - before
    steps = 10 + max(int(name.removeprefix("step-")) for name in states(tmp_path / "out"))
    run("train", "--resume", "-o", "out", "--steps", steps, "-q")
    options = ["--steps", steps, "--batch-size", 4, "--save-every", 5, "-o", "straight", "-q"]
    run("train", *backbone, "--data", images, *options)
    straight = (tmp_path / "straight" / "patch.safetensors").read_bytes()
    assert (tmp_path / "out" / "patch.safetensors").read_bytes() == straight
    assert not [name for name in files_in(tmp_path / "out") if ".partial" in name]


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    run("train", *backbone, *recipe(images, steps=6, out="out"))
    newest = tmp_path / "out" / "checkpoints" / "step-00000006" / "learnt.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    result = run("train", "--resume", "-o", "out", "--steps", 10)
    assert "step-00000006 is damaged" in result.stderr
    run("train", *backbone, *recipe(images, steps=10, out="straight"))
    straight = (tmp_path / "straight" / "patch.safetensors").read_bytes()
    assert (tmp_path / "out" / "patch.safetensors").read_bytes() == straight


def test_a_run_of_an_earlier_version_goes_on(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    run("train", *backbone, *recipe(images, steps=2, out="out"))
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    del settings["train"]["warmup"], settings["patch"]["selection"]  # as if they had come later; 4 was asked for
    (tmp_path / "out" / "config.json").write_text(json.dumps(settings))
    assert "other settings: warmup" in run("train", "--resume", "-o", "out", "--steps", 3, code=1).stderr
    settings["train"]["warmup"] = 4
    (tmp_path / "out" / "config.json").write_text(json.dumps(settings))
    run("train", "--resume", "-o", "out", "--steps", 3, "-q")
