"""``dmp convert``: the same weights in another container, and what diffusers cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.backbones.native_file import save_backbone
from dmp_cli.config import CodecRecord
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import call_of, diffusers_dit, tiny_dit, write_meta_checkpoint

from .conftest import Run, files_in, parse

FILES = {"config.json", "diffusion_pytorch_model.safetensors"}


def own_file(path: Path, **changes: Any) -> Path:
    save_backbone(path, tiny_dit(**changes), codec=CodecRecord(), training={})
    return path


def test_diffusers_loads_what_is_written_and_says_the_same(run: Run, tmp_path: Path) -> None:
    from diffusers import DiTTransformer2DModel

    source = own_file(tmp_path / "own.safetensors", freq_shift=1.0, mlp_norm_eps=1e-5, mlp_size=64)
    result = run("convert", "--backbone", source, "-o", "folder")
    assert "warning" not in result.stderr
    assert files_in(Path("folder")) == FILES
    model, report = DiTTransformer2DModel.from_pretrained("folder", output_loading_info=True, low_cpu_mem_usage=False)
    assert not any(report.values())
    backbone = load_backbone(str(source))
    x, timesteps, labels = call_of(backbone)
    with torch.no_grad():
        ours = backbone(x, timesteps, labels)
        theirs = model.eval()(x, timestep=timesteps, class_labels=labels).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("trained_with", ["meta", "diffusers"])
def test_there_and_back_are_the_same_weights(run: Run, tmp_path: Path, trained_with: str) -> None:
    changes = {"freq_shift": 1.0, "mlp_norm_eps": 1e-5} if trained_with == "diffusers" else {}
    source = own_file(tmp_path / "own.safetensors", mlp_size=64, **changes)
    there = run("convert", "--backbone", source, "-o", "folder", "--json")
    assert ("Meta's timestep frequencies" in there.stderr) == (trained_with == "meta")
    back = run("convert", "--backbone", "folder", "--trained-with", trained_with, "-o", "back.pt", "--json")
    assert parse(there)["digest"] == parse(back)["digest"]
    hints: dict[str, Any] = {"num_classes": 4, "num_heads": 2, "trained_with": trained_with}
    again, first = load_backbone("back.pt", **hints), load_backbone(str(source))
    call = call_of(first)
    assert torch.equal(again(*call), first(*call))


def test_from_a_folder_of_diffusers_to_a_pt(run: Run, tmp_path: Path) -> None:
    model = diffusers_dit()
    model.save_pretrained(tmp_path / "theirs")
    run("convert", "--backbone", "theirs", "--trained-with", "diffusers", "-o", "ours.pt", "-q")
    weights = torch.load("ours.pt", weights_only=True)
    assert "blocks.0.attn.qkv.weight" in weights
    backbone = load_backbone("ours.pt", num_classes=4, num_heads=2, trained_with="diffusers")
    x, timesteps, labels = call_of(backbone)
    with torch.no_grad():
        theirs = model(x, timestep=timesteps, class_labels=labels).sample
        torch.testing.assert_close(backbone(x, timesteps, labels), theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 1, "null_row": False, "mlp_size": 64}, "1 classes and no null class"),
        ({"num_classes": 0, "null_row": False, "mlp_size": 64}, "0 classes and no null class"),
        ({}, "MLP is not four times as wide"),
    ],
)
def test_what_diffusers_cannot_express(run: Run, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = own_file(tmp_path / "own.safetensors", **changes)
    assert message in run("convert", "--backbone", source, "-o", "folder", code=1).stderr
    assert not Path("folder").exists()
    run("convert", "--backbone", source, "-o", "ours.pt")


def test_other_positions_and_other_families_are_refused(run: Run, tmp_path: Path) -> None:
    odd = tiny_dit(mlp_size=64)
    odd.pos_embed.data += 0.1
    weights = write_meta_checkpoint(tmp_path / "odd.pt", odd)
    named = ["--backbone", weights, "--num-classes", 4, "--num-heads", 2]
    assert "positions are not the usual ones" in run("convert", *named, "-o", "folder", code=1).stderr
    tiny_plain_unet().save_pretrained(tmp_path / "unet")
    for output in ("folder", "x.pt"):
        said = run("convert", "--backbone", "unet", "--schedule", "linear", "-o", output, code=1).stderr
        assert "a unet backbone cannot be converted" in said
    assert "no place to write to" in run("convert", *named, code=1).stderr


def test_what_is_there_is_kept_unless_forced(run: Run, tmp_path: Path) -> None:
    source = own_file(tmp_path / "own.safetensors", mlp_size=64)
    for output in ("folder", "ours.pt"):
        run("convert", "--backbone", source, "-o", output)
        assert "exists already" in run("convert", "--backbone", source, "-o", output, code=1).stderr
        run("convert", "--backbone", source, "-o", output, "--force")
    assert files_in(Path("folder")) == FILES
    Path("folder", "notes.txt").write_text("mine")
    said = run("convert", "--backbone", source, "-o", "folder", "--force", code=1).stderr
    assert "holds other things than a converted DiT" in said
    assert files_in(Path("folder")) == FILES | {"notes.txt"}
