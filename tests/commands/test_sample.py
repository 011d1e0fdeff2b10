"""``dmp sample``: the same images for the same seed, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli.patching.file import load_patch, save_patch

from .conftest import Run, files_in, parse
from .samples import QUICK, bytes_of, names, pixels


def test_exact_files_and_what_they_say(run: Run, patch: Path, tmp_path: Path) -> None:
    result = parse(run("sample", "--patch", patch, "-n", 6, *QUICK, "-o", "s", "--json"))
    assert result["num_images"] == 6
    assert files_in(tmp_path / "s") == names(6)
    about = json.loads((tmp_path / "s" / "samples.json").read_text())
    assert about["num_images"] == 6
    assert about["made"]["sample"]["classes"] == [0, 1, 2, 3]
    assert about["made"]["sample"]["guidance"] == 1.5
    assert about["origin"]["given"] == {"patch": str(patch)}
    assert about["origin"]["trained"]["steps"] == 3
    assert about["origin"]["trained"]["name"] == "dmp, seed 0"
    assert Image.open(tmp_path / "s" / "000000.png").size == (8, 8)


def test_a_second_call_continues_with_the_same_bytes(run: Run, patch: Path, tmp_path: Path) -> None:
    common = ["sample", "--patch", patch, *QUICK, "--batch-size", 4]
    run(*common, "-n", 11, "-o", "straight")
    run(*common, "-n", 6, "-o", "parts")
    first = bytes_of(tmp_path / "parts", 6)
    run("sample", "--patch", patch, *QUICK, "-n", 11, "-o", "parts")  # the chunks are remembered
    assert bytes_of(tmp_path / "parts", 6) == first
    assert bytes_of(tmp_path / "parts", 11) == bytes_of(tmp_path / "straight", 11)
    (tmp_path / "parts" / "000005.png").unlink()
    run(*common, "-n", 11, "-o", "parts")
    assert bytes_of(tmp_path / "parts", 11) == bytes_of(tmp_path / "straight", 11)
    assert files_in(tmp_path / "parts") == names(11)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_another_batch_size_differs_by_one_level_at_most(sampler: str, run: Run, patch: Path, tmp_path: Path) -> None:
    for size in (1, 7):
        run("sample", "--patch", patch, "-n", 7, *QUICK, "--sampler", sampler, "--batch-size", size, "-o", f"s{size}")
    assert np.abs(pixels(tmp_path / "s1", 7) - pixels(tmp_path / "s7", 7)).max() <= 1


def test_no_patch_is_the_bare_backbone_from_the_same_noise(
    run: Run, patch: Path, backbone: list[str], tmp_path: Path
) -> None:
    run("sample", "--patch", patch, "-n", 4, *QUICK, "-o", "patched")
    run("sample", "--patch", patch, "--no-patch", "-n", 4, *QUICK, "-o", "bare")
    run("sample", "--patch", patch, "--strength", 0, "-n", 4, *QUICK, "-o", "zero")
    run("sample", *backbone, "-n", 4, *QUICK, "-o", "backbone")
    bare = bytes_of(tmp_path / "bare", 4)
    assert bare == bytes_of(tmp_path / "zero", 4) == bytes_of(tmp_path / "backbone", 4)
    assert bare != bytes_of(tmp_path / "patched", 4)


def test_a_moved_backbone_is_given_again(run: Run, patch: Path, checkpoint: Path, tmp_path: Path) -> None:
    checkpoint.rename(tmp_path / "elsewhere.pt")
    result = run("sample", "--patch", patch, "-n", 1, *QUICK, "-o", "s", code=1)
    assert "--checkpoint" in result.stderr
    run("sample", "--patch", patch, "--checkpoint", "elsewhere.pt", "-n", 1, *QUICK, "-o", "s")


def test_classes_are_taken_in_turn(run: Run, patch: Path, tmp_path: Path) -> None:
    run("sample", "--patch", patch, "--classes", "3,1", "-n", 3, *QUICK, "-o", "some")
    run("sample", "--patch", patch, "--classes", "3", "-n", 3, *QUICK, "-o", "three")
    some, three = bytes_of(tmp_path / "some", 3), bytes_of(tmp_path / "three", 3)
    assert some[0] == three[0]
    assert some[1] != three[1]


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_files(run: Run, patch: Path, tmp_path: Path) -> None:
    options = ["sample", "--patch", str(patch), "--steps", "20", "--batch-size", "4", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for number in (signal.SIGKILL, signal.SIGTERM):
        have = len(list((tmp_path / "parts").glob("0*.png")))
        process = subprocess.Popen(  # far more images than it lives to draw
            [sys.executable, "-m", "dmp_cli", *options, "-n", "100000", "-o", "parts"],
            stderr=subprocess.PIPE,
            env=environment,
        )
        while len(list((tmp_path / "parts").glob("0*.png"))) < have + 3 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        process.communicate()
        assert process.returncode == (-9 if number == signal.SIGKILL else 143)
    count = 4 + len(list((tmp_path / "parts").glob("0*.png")))
    run(*options, "-n", count, "-o", "parts")
    run(*options, "-n", count, "-o", "straight")
    assert files_in(tmp_path / "parts") == files_in(tmp_path / "straight") == names(count)
    assert bytes_of(tmp_path / "parts", count) == bytes_of(tmp_path / "straight", count)


def test_a_full_disk(run: Run, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    result = run("sample", "--patch", patch, "-n", 6, *QUICK, "-o", "s", code=1)
    assert "no space left" in result.stderr
    monkeypatch.undo()
    os.chdir(tmp_path)
    assert not [name for name in files_in(tmp_path / "s") if ".partial" in name]
    run("sample", "--patch", patch, "-n", 6, *QUICK, "-o", "s")
    assert files_in(tmp_path / "s") == names(6)


def test_the_patch_in_half_precision_stays_near(run: Run, patch: Path, tmp_path: Path) -> None:
    run("sample", "--patch", patch, "-n", 4, *QUICK, "-o", "full")
    run("sample", "--patch", patch, "-n", 4, *QUICK, "--dtype", "bf16", "-o", "half")
    difference = np.abs(pixels(tmp_path / "full", 4) - pixels(tmp_path / "half", 4))
    assert 0 < difference.mean() < 12


def test_sampling_a_patch_whose_prompts_grew_changes_the_pictures(run: Run, patch: Path, tmp_path: Path) -> None:
    loaded = load_patch(patch)
    with torch.no_grad():
        for prompt in loaded.prompts:
            prompt.mul_(50)
    save_patch(tmp_path / "grown.safetensors", loaded)
    run("sample", "--patch", patch, "-n", 1, *QUICK, "-o", "a")
    run("sample", "--patch", "grown.safetensors", "-n", 1, *QUICK, "-o", "b")
    assert np.abs(pixels(tmp_path / "a", 1) - pixels(tmp_path / "b", 1)).max() > 1
