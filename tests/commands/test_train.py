"""``dmp train``: what a run writes, learns and reports, from which images and backbones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmp_cli.backbones import load_backbone
from dmp_cli.patching.file import load_patch
from tests.builders import tiny_dit, write_images, write_meta_checkpoint

from .conftest import Run, files_in, parse
from .train_runs import expected_files


def test_a_run_writes_exactly_these_files(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    run(
        *("train", *backbone, "--data", images, "--steps", 6, "--batch-size", 4, "--save-every", 2, "--keep", 2),
        *("--log-every", 3, "--sample-every", 6, "--ema", 0.9, "-o", "out"),
    )
    learnt = {"patch.safetensors", "patch-ema.safetensors", "samples/step-00000006.png"}
    assert files_in(tmp_path / "out") == expected_files(4, 6, learnt=learnt)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert all(line["loss"] == pytest.approx(line["mse"] + line["bound"], rel=1e-5) for line in lines)
    assert all(line["importance"] > 0 and line["load"] > 0 for line in lines)
    assert all(1 < line["effective_prompts"] <= 16 and 0 <= line["dead_prompts"] <= 16 for line in lines)


def test_training_changes_the_patch_and_never_the_backbone(patch: Path, checkpoint: Path) -> None:
    trained = load_patch(patch)
    assert trained.record is not None
    assert trained.record.training is not None
    assert trained.record.training["steps_done"] == 3
    assert all(prompt.abs().max() > 0 for prompt in trained.prompts)
    again = load_backbone(str(checkpoint), num_classes=4, num_heads=2)
    assert again.record is not None
    assert trained.record.backbone.digest == again.record.digest


def test_workers_and_micro_batches_train_the_same(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    common = ["train", *backbone, "--data", images, "--steps", 3, "--batch-size", 4, "--lr", 0.01, "-q"]
    run(*common, "-o", "a")
    run(*common, "-o", "b", "--workers", 2)
    run(*common, "-o", "c", "--micro-batch-size", 2)
    a, b, c = (load_file(tmp_path / name / "patch.safetensors") for name in "abc")
    for name, value in a.items():
        assert torch.equal(value, b[name])
        torch.testing.assert_close(value, c[name], rtol=2e-3, atol=1e-5)


def test_bad_images_are_named_counted_and_skipped(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    (images / "0" / "broken.png").write_bytes(b"\x89PNG nothing more")
    options = ["train", *backbone, "--data", images, "--batch-size", 9, "--steps", 2]
    result = run(*options, "-o", "out", "--json")
    assert parse(result)["skipped_images"] == 1
    assert "broken.png" in result.stderr
    assert "broken.png" in (tmp_path / "out" / "log.jsonl").read_text()
    assert "broken.png" in run(*options, "-o", "strict", "--max-bad", 0, code=1).stderr


def test_tensorboard_events(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run("train", *backbone, "--data", images, "--steps", 1, "--batch-size", 2, "--tensorboard", "-o", "out", "-q")
    assert list((tmp_path / "out" / "tensorboard").glob("events.out.tfevents.*"))


def test_one_class_backbone_reads_a_flat_folder(run: Run, tmp_path: Path) -> None:
    weights = write_meta_checkpoint(tmp_path / "one.pt", tiny_dit(num_classes=1, null_row=False), wrap=None)
    flat = write_images(tmp_path / "flat", classes=0)
    options = ["--num-heads", 2, "--data", flat, "--steps", 1, "--batch-size", 2]
    run("train", "--backbone", weights, *options, "-o", "out", "-q")
    shutil.rmtree(tmp_path / "out")


def test_a_latent_backbone_with_its_vae(run: Run, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4, "scaling_factor": 0.5}
    AutoencoderKL(**blocks, **sizes).save_pretrained(tmp_path / "vae")
    weights = write_meta_checkpoint(tmp_path / "latent.pt", tiny_dit(in_channels=4, num_classes=1, null_row=False))
    flat = write_images(tmp_path / "flat", classes=0, size=16)  # 16 pixels are 8 in the latent
    named = ["--backbone", weights, "--num-heads", 2]
    assert "no VAE" in run("train", *named, "--data", flat, "--steps", 1, "-o", "x", code=1).stderr
    run("train", *named, "--vae", "vae", "--data", flat, "--steps", 2, "--batch-size", 4, "-o", "out", "-q")
    record = load_patch(tmp_path / "out" / "patch.safetensors").record
    assert record is not None
    assert (record.codec.kind, record.image_size) == ("vae", 16)
    run("sample", "--patch", "out/patch.safetensors", "-n", 2, "--steps", 3, "--device", "cpu", "-o", "s", "-q")
    assert read_size(tmp_path / "s" / "000000.png") == (16, 16)
    other = AutoencoderKL(**blocks, **sizes)
    other.save_pretrained(tmp_path / "other")
    refused = run("sample", "--patch", "out/patch.safetensors", "--vae", "other", "-n", 1, "-o", "t", code=1)
    assert "another codec" in refused.stderr


def read_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    return Image.open(path).size
