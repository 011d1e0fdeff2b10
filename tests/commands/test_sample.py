"""``dmp sample``: the same images for the same seed, whatever happens in between."""

from __future__ import annotations

import hashlib
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

from dmp_cli.backbones import load_backbone
from dmp_cli.errors import PatchError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.file import load_patch, save_patch
from tests.builders import tiny_dit, write_meta_checkpoint

from .conftest import Run, files_in, parse

QUICK = ["--steps", "5", "--device", "cpu", "-q"]


def names(count: int) -> set[str]:
    about = {".lock", "SHA256SUMS", "grid.png", "plan.jsonl", "samples.json"}
    return {f"{index:06d}.png" for index in range(count)} | about


def pixels(folder: Path, count: int) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / f"{i:06d}.png")).astype(int) for i in range(count)])


def bytes_of(folder: Path, count: int) -> list[bytes]:
    return [(folder / f"{index:06d}.png").read_bytes() for index in range(count)]


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


def test_a_folder_of_other_samples_is_refused(run: Run, patch: Path, tmp_path: Path) -> None:
    run("sample", "--patch", patch, "-n", 2, *QUICK, "-o", "s")
    before = bytes_of(tmp_path / "s", 2)
    for options in (["--seed", 1], ["--steps", 4], ["--guidance", 2], ["--batch-size", 1], ["--no-patch"]):
        result = run("sample", "--patch", patch, "-n", 2, *QUICK, *options, "-o", "s", code=1)
        assert "holds samples made with other settings" in result.stderr
    assert bytes_of(tmp_path / "s", 2) == before
    run("sample", "--patch", patch, "-n", 1, *QUICK, "--seed", 1, "-o", "s", "--force")
    assert files_in(tmp_path / "s") == names(1)
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.txt").write_text("mine")
    assert "exists already" in run("sample", "--patch", patch, "-n", 1, *QUICK, "-o", "photos", code=1).stderr


def test_a_patch_for_another_backbone_is_refused(run: Run, patch: Path, checkpoint: Path, tmp_path: Path) -> None:
    others = {
        "other weights": tiny_dit(seed=5),
        "num_classes": tiny_dit(num_classes=9),
        "input_size": tiny_dit(input_size=16),
        "learn_sigma": tiny_dit(learn_sigma=False),
    }
    for message, other in others.items():
        moved = write_meta_checkpoint(tmp_path / "other.pt", other)
        options = ["--patch", patch, "--checkpoint", moved, "-n", 1, *QUICK, "-o", "s"]
        result = run("sample", *options, code=1)
        assert "Traceback" not in result.stderr
        assert message in result.stderr or "does not fit" in result.stderr
        assert not (tmp_path / "s").exists()
    moved = write_meta_checkpoint(tmp_path / "other.pt", tiny_dit(seed=5))
    run("sample", "--patch", patch, "--checkpoint", moved, "--force-backbone", "-n", 1, *QUICK, "-o", "s")


def test_a_moved_backbone_is_given_again(run: Run, patch: Path, checkpoint: Path, tmp_path: Path) -> None:
    checkpoint.rename(tmp_path / "elsewhere.pt")
    result = run("sample", "--patch", patch, "-n", 1, *QUICK, "-o", "s", code=1)
    assert "--checkpoint" in result.stderr
    run("sample", "--patch", patch, "--checkpoint", "elsewhere.pt", "-n", 1, *QUICK, "-o", "s")


def test_a_damaged_patch_is_refused(run: Run, patch: Path, tmp_path: Path) -> None:
    data = patch.read_bytes()
    flipped = bytearray(data)
    flipped[-5] ^= 4
    for content in (b"", data[: len(data) // 2], bytes(flipped), b"not safetensors at all"):
        (tmp_path / "bad.safetensors").write_bytes(content)
        result = run("sample", "--patch", "bad.safetensors", "-n", 1, *QUICK, "-o", "s", code=1)
        assert "bad.safetensors" in result.stderr
        assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "0,4"], "knows classes 0..3"),
        (["--classes", "cat"], "class indices"),
        (["--grid", "4"], "rows and columns"),
        (["--steps", "1001"], "1000 timesteps"),
        (["-n", "0"], "--num-images 0"),
    ],
)
def test_bad_options(options: list[str], message: str, run: Run, patch: Path, tmp_path: Path) -> None:
    result = run("sample", "--patch", patch, *QUICK, *options, "-o", "s", code=1)
    assert message in result.stderr
    assert not (tmp_path / "s").exists()


def test_guidance_needs_a_null_condition(run: Run, tmp_path: Path) -> None:
    weights = write_meta_checkpoint(tmp_path / "one.pt", tiny_dit(num_classes=1, null_row=False), wrap=None)
    named = ["--backbone", weights, "--num-heads", 2]
    assert "lacks" in run("sample", *named, "--guidance", 2, "-n", 1, *QUICK, "-o", "s", code=1).stderr
    run("sample", *named, "-n", 1, *QUICK, "-o", "s")


def test_classes_are_taken_in_turn(run: Run, patch: Path, tmp_path: Path) -> None:
    run("sample", "--patch", patch, "--classes", "3,1", "-n", 3, *QUICK, "-o", "some")
    run("sample", "--patch", patch, "--classes", "3", "-n", 3, *QUICK, "-o", "three")
    some, three = bytes_of(tmp_path / "some", 3), bytes_of(tmp_path / "three", 3)
    assert some[0] == three[0]
    assert some[1] != three[1]


@pytest.fixture
def adapter(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> Path:
    options = ["--method", "lora", "--steps", 3, "--batch-size", 4, "--lr", 0.1, "-o", "adapted", "-q"]
    run("train", *backbone, "--data", images, *options)
    return tmp_path / "adapted" / "adapter"


def test_an_adapter_in_its_backbone(run: Run, adapter: Path, backbone: list[str], tmp_path: Path) -> None:
    common = ["sample", *backbone, "-n", 2, *QUICK]
    run(*common, "--adapter", adapter, "-o", "adapted-samples")
    run(*common, "-o", "bare")
    assert bytes_of(tmp_path / "adapted-samples", 2) != bytes_of(tmp_path / "bare", 2)
    digest = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    for folder, expected in (("adapted-samples", digest), ("bare", None)):
        made = json.loads((tmp_path / folder / "samples.json").read_text())["made"]
        assert (made["adapter"], made["patch"]) == (expected, None)
    assert "adapter differ" in run(*common, "-o", "adapted-samples", code=1).stderr


def test_adapters_that_are_refused(run: Run, adapter: Path, backbone: list[str], patch: Path, tmp_path: Path) -> None:
    common = ["sample", "-n", 1, *QUICK, "-o", "s", "--adapter", adapter]
    for more in (["--patch", patch], ["--no-patch"], ["--strength", 0.5]):
        assert "--adapter goes without" in run(*common, *backbone, *more, code=1).stderr
    assert "no backbone given for --adapter" in run(*common, code=1).stderr
    other = write_meta_checkpoint(tmp_path / "other.pt", tiny_dit(seed=5))
    result = run(*common, "--backbone", other, *backbone[2:], code=1)
    assert "another backbone" in result.stderr
    assert not (tmp_path / "s").exists()


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


def test_weights_changed_in_memory_are_not_those_of_the_patch(patch: Path, checkpoint: Path) -> None:
    backbone = load_backbone(str(checkpoint), num_classes=4, num_heads=2)
    attach(backbone, load_patch(patch)).detach()
    with torch.no_grad():
        backbone.get_parameter("blocks.0.mlp.fc1.bias")[0] += 1
    with pytest.raises(PatchError, match="other weights"):
        attach(backbone, load_patch(patch))
