"""``dmp sample``: the folders, backbones, patches and options that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.errors import PatchError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.file import load_patch
from tests.builders import tiny_dit, write_meta_checkpoint

from .conftest import Run, files_in
from .samples import QUICK, bytes_of, names


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


def test_weights_changed_in_memory_are_not_those_of_the_patch(patch: Path, checkpoint: Path) -> None:
    backbone = load_backbone(str(checkpoint), num_classes=4, num_heads=2)
    attach(backbone, load_patch(patch)).detach()
    with torch.no_grad():
        backbone.get_parameter("blocks.0.mlp.fc1.bias")[0] += 1
    with pytest.raises(PatchError, match="other weights"):
        attach(backbone, load_patch(patch))
