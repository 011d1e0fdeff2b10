"""``--experts``: patches with low-rank experts through every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from .conftest import Run, files_in, parse
from .test_inspect_gates import FILES

HOW = ("--batch-size", 4, "--lr", 0.05, "-q")


@pytest.mark.parametrize("experts", ["lora", "both"])
def test_trained_resumed_sampled_and_scored(
    experts: str, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    options = ["--experts", experts, "--num-experts", 3, "--expert-rank", 2, "--expert-targets", "qkv,fc2"]
    train = ["train", *backbone, "--data", images, *options, "--ema", 0.9, *HOW]
    run(*train, "--steps", 6, "-o", "straight")
    run(*train, "--steps", 2, "-o", "parts")
    run("train", "--resume", "-o", "parts", "--steps", 6, "-q")
    for name in ("patch.safetensors", "patch-ema.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    tensors = load_file(tmp_path / "straight" / "patch.safetensors")
    learnt = {f"experts.{i}.{j}.{part}" for i in range(3) for j in range(2) for part in ("down", "up")}
    learnt |= {"gate.weight", "gate.bias"} | ({f"prompts.{i}" for i in range(3)} if experts == "both" else set())
    assert set(tensors) == learnt
    assert tensors["experts.0.0.up"].shape == (48, 3, 2)
    assert all(value.abs().max() > 0 for value in tensors.values())
    run("sample", "--patch", "straight/patch.safetensors", "-n", 4, "--steps", 3, "-o", "patched", "-q")
    run("sample", *backbone, "-n", 4, "--steps", 3, "-o", "bare", "-q")
    run("sample", *backbone, "--against", "straight/patch.safetensors", "-n", 4, "--steps", 3, "-o", "led", "-q")
    pictures = {(tmp_path / name / "000000.png").read_bytes() for name in ("patched", "bare", "led")}
    assert len(pictures) == 3
    told = run("patch", "--info", "straight/patch.safetensors").stdout
    assert "3 experts of rank 2 in attn.qkv, mlp.fc2" in " ".join(told.split())
    loss = ["eval", "--loss", "--patch", "straight/patch.safetensors", "--val-data", images, "--val-draws", 40]
    assert parse(run(*loss, "-o", "loss", "--json"))


def test_the_start_has_the_loss_of_the_bare_network(run: Run, backbone: list[str], images: Path) -> None:
    held = ["--val-split", 0.5, "--val-every", 1, "--val-draws", 40]
    run("train", *backbone, "--data", images, "--experts", "both", *held, *HOW, "--steps", 1, "-o", "out")
    lines = [json.loads(line) for line in Path("out/log.jsonl").read_text().splitlines()]
    first = next(line for line in lines if "held_out" in json.dumps(line))
    assert first["step"] == 0
    assert first["held_out"]["difference"] == 0


def test_gates_of_experts_are_drawn(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    for experts in ("lora", "both"):
        run("train", *backbone, "--data", images, "--experts", experts, *HOW, "--steps", 2, "-o", experts)
        result = parse(run("inspect-gates", "--patch", f"{experts}/patch.safetensors", "-o", f"g-{experts}", "--json"))
        assert result["num_prompts"] == (4 if experts == "lora" else 16)
    assert files_in(tmp_path / "g-lora") == FILES
    assert files_in(tmp_path / "g-both") == FILES | {f"experts/{name}" for name in FILES - {"gates.html"}}
    for name, shares in (("g-lora", 4), ("g-both", 16), ("g-both/experts", 4)):
        with np.load(tmp_path / name / "gates.npz", allow_pickle=False) as stored:
            assert stored["weights"].shape == (1000, 3, shares)
            np.testing.assert_allclose(stored["weights"].sum(-1), 1, rtol=1e-5)


def test_bad_input_is_one_sentence(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    train = ["train", *backbone, "--data", images, "--steps", 1, "-o", "out"]
    for options, reason in (
        (["--num-experts", 2], "--num-experts is about low-rank experts"),
        (["--experts", "lora", "--expert-targets", "qkw"], "no linear layer of a block has this name"),
        (["--experts", "lora", "--method", "prompt-tuning"], "--method prompt-tuning has prompts alone"),
        (["--experts", "lora", "--method", "lora"], "--method lora trains no patch"),
        (["--experts", "lora", "--depth", 0], "--depth 0 leaves nothing to train"),
    ):
        refused = run(*train, *options, code=1)
        assert reason in " ".join(refused.stderr.split())
        assert not (tmp_path / "out" / "patch.safetensors").exists()


def test_the_report_counts_them(run: Run, backbone: list[str]) -> None:
    told = parse(run("patch", *backbone, "--experts", "lora", "--expert-rank", 2, "--json"))
    per_block = 4 * 2 * ((16 + 48) + (16 + 16) + (16 + 32) + (32 + 16))
    assert told["patch_parameters"] == 3 * per_block + 4 * 17 + 4
    assert told["gate_parameters"] == 4 * 17 + 4
    shown = " ".join(run("patch", *backbone, "--experts", "lora", "--expert-rank", 2).stdout.split())
    assert f"3 x (4 experts of rank 2 in 4 layers) │ 3 x {per_block:,}" in shown
