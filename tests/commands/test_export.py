"""``dmp patch --export``: a patch as a table that any code can add."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from dmp_cli.patching.file import read_record

from .conftest import Run, parse


def test_a_table_for_a_samplers_timesteps(run: Run, patch: Path, tmp_path: Path) -> None:
    options = ["--sampler", "ddim", "--steps", 5, "-o", "table.safetensors"]
    result = parse(run("patch", "--export", patch, *options, "--json"))
    assert result["timesteps"] == [800, 600, 400, 200, 0]
    data = Path("table.safetensors").read_bytes()
    assert result["sha256"] == hashlib.sha256(data).hexdigest()
    tensors = load_file("table.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {f"prompts.{i}": (16, 16) for i in range(3)} | {f"weights.{i}": (5, 16, 1) for i in range(3)}
    with safe_open("table.safetensors", framework="pt") as file:
        record = json.loads(file.metadata()["dmp.table"])
    assert record["blocks"] == ["blocks.0", "blocks.1", "blocks.2"]
    assert record["backbone"]["digest"] == read_record(patch).backbone.digest
    assert record["patch"] == hashlib.sha256(patch.read_bytes()).hexdigest()
    assert "exists already" in run("patch", "--export", patch, *options, code=1).stderr
    run("patch", "--export", patch, *options, "--force", "--dense", "-q")
    dense = load_file("table.safetensors")
    assert {tuple(tensor.shape) for tensor in dense.values()} == {(5, 16, 16)}
    assert (dense["mixtures.1"] == tensors["weights.1"] * tensors["prompts.1"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--steps", "0"], "--steps 0"), (["--sampler", "ddim", "--steps", "1001"], "ddim takes at most 1000")],
)
def test_bad_options(run: Run, patch: Path, options: list[str], message: str) -> None:
    assert message in run("patch", "--export", patch, *options, "-o", "x.safetensors", code=1).stderr
    assert not Path("x.safetensors").exists()


def test_only_a_patch_can_be_baked(run: Run, checkpoint: Path) -> None:
    run("patch", "--export", checkpoint, "-o", "x.safetensors", code=1)
    assert not Path("x.safetensors").exists()
