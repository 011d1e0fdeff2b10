"""``dmp inspect-gates``: files, numbers, and a patch whose gate is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.patching.file import load_patch, save_patch

from .conftest import Run, files_in, parse

FILES = {
    "gates.html",
    "gates.npz",
    "gates.csv",
    "gates.png",
    "usage.png",
    "summary.json",
    *(f"block-{i:02d}.png" for i in range(3)),
}


def test_exact_files_and_weights(run: Run, patch: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = parse(run("inspect-gates", "--patch", patch, "-o", "g", "--json"))
    assert files_in(tmp_path / "g") == FILES
    assert len(result["blocks"]) == 3
    with np.load(tmp_path / "g" / "gates.npz", allow_pickle=False) as stored:
        weights, timesteps = stored["weights"], stored["timesteps"]
    assert weights.shape == (1000, 3, 16)
    # softmax(W [t; i] + b), one block and timestep at a time, in float64
    loaded = load_patch(patch)
    assert loaded.gate is not None
    backbone = load_backbone(str(checkpoint), num_classes=4, num_heads=2)
    weight, bias = loaded.gate.weight.detach().double().numpy(), loaded.gate.bias.detach().double().numpy()
    for t in (0, 137, 999):
        vector = backbone.gate_vector(torch.tensor([t]))[0].detach().double().numpy()
        for block in range(3):
            logits = weight @ np.append(vector, block) + bias
            expected = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(weights[timesteps == t][0, block], expected, rtol=2e-5)
    summary = json.loads((tmp_path / "g" / "summary.json").read_text())
    assert len(summary["blocks"]) == 3


def test_patches_without_a_gate_draw_flat_maps(run: Run, backbone: list[str], tmp_path: Path) -> None:
    for gate in ("constant", "none"):
        run("patch", *backbone, "--gate", gate, "-o", f"{gate}.safetensors", "-q")
        result = parse(run("inspect-gates", "--patch", f"{gate}.safetensors", "-o", gate, "--json"))
        for block in result["blocks"]:
            assert block["entropy_share"] == pytest.approx(1)
            assert block["dead_prompts"] == 0


def test_a_gate_that_chooses_by_timestep_shows(run: Run, patch: Path, tmp_path: Path) -> None:
    loaded = load_patch(patch)
    assert loaded.gate is not None
    with torch.no_grad():
        loaded.gate.weight.mul_(60)
    save_patch(tmp_path / "sharp.safetensors", loaded)
    flat = parse(run("inspect-gates", "--patch", patch, "-o", "a", "--json"))
    sharp = parse(run("inspect-gates", "--patch", "sharp.safetensors", "-o", "b", "--json"))
    assert sharp["blocks"][0]["effective_prompts"] < 0.7 * flat["blocks"][0]["effective_prompts"]


def test_refusals(run: Run, patch: Path, tmp_path: Path) -> None:
    assert "no patch given" in run("inspect-gates", code=1).stderr
    run("inspect-gates", "--patch", patch, "-o", "g", "-q")
    assert "exists already" in run("inspect-gates", "--patch", patch, "-o", "g", code=1).stderr
    run("inspect-gates", "--patch", patch, "-o", "g", "-q", "--force")
    assert files_in(tmp_path / "g") == FILES


def test_two_patches_are_held_against_each_other(run: Run, patch: Path, backbone: list[str], images: Path) -> None:
    train = ["train", *backbone, "--data", images, "--steps", 3, "--batch-size", 4, "--gate-lr", 0.3, "-q"]
    run(*train, "--seed", 5, "-o", "other")
    options = ["inspect-gates", "--patch", patch, "--compare", "other/patch.safetensors"]
    result = parse(run(*options, "-o", "g", "--json"))
    assert files_in(Path("g")) == FILES | {"comparison.json", "comparison.png"}
    assert result["comparison"] == json.loads(Path("g", "comparison.json").read_text())
    assert result["comparison"]["patches"] == [str(patch), "other/patch.safetensors"]
    assert all(0 < block["mean"] <= block["largest"] < 0.7 for block in result["comparison"]["blocks"])
    assert sum(result["variance"].values()) == pytest.approx(1)
    same = parse(run("inspect-gates", "--patch", patch, "--compare", patch, "-o", "same", "--json"))
    assert same["comparison"]["mean"] == 0
    run(*train, "--depth", 1, "-o", "shallow")
    shallow = ["--compare", "shallow/patch.safetensors", "-o", "refused"]
    assert "differ in size" in run("inspect-gates", "--patch", patch, *shallow, code=1).stderr
    assert not Path("refused").exists()


def test_how_large_what_is_added_is_on_real_images(run: Run, patch: Path, images: Path) -> None:
    result = parse(run("inspect-gates", "--patch", patch, "--data", images, "-n", 4, "-o", "g", "--json"))
    assert files_in(Path("g")) == FILES | {"added.csv", "added.png"}
    lines = Path("g", "added.csv").read_text().splitlines()
    assert lines[0] == "block,timestep,added_norm,hidden_norm,ratio"
    assert len(lines) == 1 + 3 * 21
    assert [line.split(",")[1] for line in (lines[1], lines[21])] == ["0", "999"]
    assert len(result["added"]["ratio"]) == 3
    assert all(ratio > 0 for ratio in result["added"]["ratio"])
    assert "does not exist" in run("inspect-gates", "--patch", patch, "--data", "none", "-o", "h", code=1).stderr
    assert not Path("h").exists()


def test_prepended_prompts_add_nothing(run: Run, backbone: list[str], images: Path) -> None:
    run("patch", *backbone, "--position", "prepend", "--num-prompts", 4, "-o", "p.safetensors", "-q")
    said = run("inspect-gates", "--patch", "p.safetensors", "--data", images, "-o", "g", code=1).stderr
    assert "adds nothing to a hidden state" in said
    assert not Path("g").exists()
