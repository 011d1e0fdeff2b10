"""``dmp sample --adapter``: images of a backbone with a LoRA adapter."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.builders import tiny_dit, write_meta_checkpoint

from .conftest import Run
from .samples import QUICK, bytes_of


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
    assert "other settings: adapter" in run(*common, "-o", "adapted-samples", code=1).stderr


def test_adapters_that_are_refused(run: Run, adapter: Path, backbone: list[str], patch: Path, tmp_path: Path) -> None:
    common = ["sample", "-n", 1, *QUICK, "-o", "s", "--adapter", adapter]
    for more in (["--patch", patch], ["--no-patch"], ["--strength", 0.5]):
        assert "--adapter goes without" in run(*common, *backbone, *more, code=1).stderr
    assert "no backbone given for --adapter" in run(*common, code=1).stderr
    other = write_meta_checkpoint(tmp_path / "other.pt", tiny_dit(seed=5))
    result = run(*common, "--backbone", other, *backbone[2:], code=1)
    assert "another backbone" in result.stderr
    assert not (tmp_path / "s").exists()
