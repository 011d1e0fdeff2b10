"""``dmp train --quantize``: a patch that learns on weights in few bits, and fits the float ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dmp_cli.backbones import quantized
from dmp_cli.patching.file import load_patch
from tests.backbones.test_quantized import by_rows

from .conftest import Run


def test_a_patch_learns_on_eight_bits_and_is_used_on_float(
    run: Run, backbone: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(quantized._PACK, "int8", by_rows)
    monkeypatch.setitem(quantized._LIBRARIES, "int8", ("torch", "quantize"))
    train = ("train", *backbone, "--data", images, "--steps", 3, "--batch-size", 4, "--lr", 0.01, "-q")
    run(*train, "-o", "float")
    run(*train, "-o", "few", "--quantize", "int8")
    patches = [load_patch(tmp_path / name / "patch.safetensors") for name in ("float", "few")]
    records = [patch.record for patch in patches]
    assert records[0] is not None
    assert records[1] is not None
    assert records[0].training is not None
    assert records[1].training is not None
    assert "quantize" not in records[0].training
    assert records[1].training["quantize"] == "int8"
    assert records[0].backbone == records[1].backbone  # the digest is that of the float weights
    assert not torch.equal(patches[0].prompts[0], patches[1].prompts[0])
    few = tmp_path / "few" / "patch.safetensors"
    assert "on weights in int8" in run("patch", "--info", few).stdout
    shown = run("sample", "--patch", few, "-n", 2, "--steps", 2, "-o", "drawn").stderr
    assert "the patch was trained on weights in int8" in shown


def test_what_cannot_be_kept_so_is_said_before_weights_are_read(run: Run, images: Path) -> None:
    train = ("train", "--backbone", "missing.pt", "--data", images, "--device", "cpu")
    assert "--quantize nf4 needs a CUDA device" in run(*train, "--quantize", "nf4", code=1).stderr
    assert "--method full learns them" in run(*train, "--quantize", "int8", "--method", "full", code=1).stderr
