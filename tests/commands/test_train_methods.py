"""``dmp train --method`` and the variants of a patch: which tensors each one trains and writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmp_cli.backbones import load_backbone

from .conftest import Run, files_in, parse
from .train_runs import expected_files

ADAPTER_FILES = {"adapter_config.json", "adapter_model.safetensors", "dmp.json"}


@pytest.mark.parametrize("method", ["full", "scratch"])
def test_methods_that_train_all_weights(
    method: str, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    start = load_backbone(backbone[1], num_classes=4, num_heads=2)
    sizes = tmp_path / "sizes.json"
    sizes.write_text(json.dumps(start.sizes))
    named = ["--backbone", sizes] if method == "scratch" else backbone
    run("train", *named, "--data", images, "--method", method, "--steps", 2, "--batch-size", 4, "-o", "out")
    assert files_in(tmp_path / "out") == expected_files(2, learnt={"backbone.safetensors"})
    trained = load_backbone(str(tmp_path / "out" / "backbone.safetensors"))
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, start.state_dict()[name])}
    assert set(start.state_dict()) - changed == {"pos_embed"}


def test_prompt_tuning_has_no_gate(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    run("train", *backbone, "--data", images, "--method", "prompt-tuning", "--steps", 1, "--batch-size", 2, "-o", "out")
    tensors = load_file(tmp_path / "out" / "patch.safetensors")
    assert set(tensors) == {"prompts.0", "prompts.1", "prompts.2"}
    prepended = ["--method", "prompt-tuning", "--position", "prepend", "--num-prompts", 5]
    run("train", *backbone, "--data", images, *prepended, "--steps", 1, "--batch-size", 2, "-o", "front")
    assert load_file(tmp_path / "front" / "patch.safetensors")["prompts.0"].shape == (5, 16)


def test_lora_writes_exactly_these_files(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    Path("qkv").touch()  # a file that is called like a layer
    common = ["train", *backbone, "--data", images, "--method", "lora", "--batch-size", 4, "--lr", 0.01, "-o", "out"]
    options = ["--lora-rank", 3, "--lora-targets", "qkv", "--ema", 0.9, "--sample-every", 2]
    result = run(*common, *options, "--steps", 2, "--json")
    assert parse(result)["output"] == "out/adapter"
    folders = {f"adapter{average}/{name}" for average in ("", "-ema") for name in ADAPTER_FILES}
    assert files_in(tmp_path / "out") == expected_files(2, learnt=folders | {"samples/step-00000002.png"})
    tensors = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert {tuple(value.shape) for value in tensors.values()} == {(3, 16), (48, 3)}
    assert all(value.abs().max() > 0 for value in tensors.values())
    run("train", "--resume", "-o", "out", "--steps", 3, "-q")
    refused = run("train", "--resume", "-o", "out", "--lora-rank", 4, code=1).stderr
    assert "other settings: lora-rank 3, now 4" in refused
    run(*common[:-1], "other", "--steps", 1, "--dry-run", "-q")
    run("train", *backbone, "--data", images, "--steps", 1, "--batch-size", 2, "-o", "out", "--force", "-q")
    assert files_in(tmp_path / "out") == expected_files(1, learnt={"patch.safetensors"})


def test_lora_without_peft(
    run: Run, backbone: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    result = run("train", *backbone, "--data", images, "--method", "lora", "-o", "out", code=1)
    assert "--method lora needs peft" in result.stderr
    assert "pip install 'peft>=0.13'" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "variant",
    [
        ["--gate", "constant"],
        ["--scope", "uniform"],
        ["--depth", "1"],
        ["--selection", "hard", "--top-k", "5"],
        ["--gate-input", "conditioning"],
        ["--gate-scale", "16"],
        ["--init", "random"],
        ["--position", "prepend", "--num-prompts", "5"],
    ],
)
def test_variants_train(variant: list[str], run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    run("train", *backbone, "--data", images, *variant, "--steps", 2, "--batch-size", 2, "-o", "out", "-q")
    tensors = load_file(tmp_path / "out" / "patch.safetensors")
    assert ("gate.weight" in tensors) == (variant[1] != "constant")
    assert ("prompts.1" in tensors) == (variant[0] != "--depth")
    if variant[0] == "--scope":
        assert tensors["gate.weight"].shape == (16, 16)  # (N, D): the depth is not read
