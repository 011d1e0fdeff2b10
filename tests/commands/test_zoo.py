"""Weights in public layouts, through every command: a patch, one training step, samples, gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dmp_cli import load_patch
from tests.backbones.pipelines import tiny_plain_unet, write_captioned, write_scheduler
from tests.backbones.text_encoders import write_clip
from tests.builders import diffusers_dit, same_weights, tiny_dit, write_images
from tests.zoo import checkpoints, diffusers_folders, original_sd
from tests.zoo.schedulers import DDPM_LIKE

from .conftest import Run

ONE = {"num_classes": 1, "null_row": False}
DDPM = DDPM_LIKE["google/ddpm-cifar10-32"]


def legacy_dit(folder: Path) -> tuple[Any, ...]:
    diffusers_dit().save_pretrained(folder / "dit" / "transformer")
    diffusers_folders.change_config(folder / "dit" / "transformer", **diffusers_folders.DIT_LEGACY)
    write_scheduler(folder / "dit" / "scheduler", **DDPM_LIKE["facebook/DiT-XL-2-256"])
    (folder / "dit" / "model_index.json").write_text("{}")
    return "--backbone", "dit", "--trained-with", "meta", "--data", write_images(folder / "images")


def training_checkpoint(folder: Path) -> tuple[Any, ...]:
    tensors = tiny_dit(num_classes=4).state_dict()
    torch.save(checkpoints.training_checkpoint(tensors, {**checkpoints.DIT_ARGS, "num_classes": 4}), folder / "dit.pt")
    return "--backbone", "dit.pt", "--num-heads", 2, "--data", write_images(folder / "images")


def snapshot(folder: Path) -> tuple[Any, ...]:
    tiny_plain_unet().save_pretrained(folder / "ddpm")
    diffusers_folders.shard(diffusers_folders.change_config(folder / "ddpm", **diffusers_folders.EMA_FIELDS))
    write_scheduler(folder / "ddpm", **DDPM)
    place = diffusers_folders.as_hub_cache(folder / "ddpm", folder / "cache")
    return "--backbone", place, "--data", write_images(folder / "images", classes=0)


def original(folder: Path) -> tuple[Any, ...]:
    unet, vae, text = original_sd.small_models(1)
    parts = (original_sd.unet_tensors(unet), original_sd.vae_tensors(vae), original_sd.clip_tensors(text))
    save_file({name: tensor for part in parts for name, tensor in part.items()}, folder / "sd.safetensors")
    words = write_clip(folder / "words")
    sizes = ("--image-size", 16)
    return "--backbone", "sd.safetensors", "--text", words, *sizes, "--data", write_captioned(folder / "data", size=16)


@pytest.mark.parametrize(
    "make", [legacy_dit, training_checkpoint, snapshot, pytest.param(original, marks=pytest.mark.slow)]
)
def test_a_public_layout_through_every_command(make: Any, run: Run, tmp_path: Path) -> None:
    source = make(tmp_path)
    train = ("--steps", 1, "--batch-size", 2, "--workers", 0, "--no-latent-store", "--device", "cpu", "-q")
    run("train", *source, *train, "-o", "run")
    prompt = ("--prompt", "a fox") if make is original else ()
    run("sample", "--patch", "run/patch.safetensors", *prompt, "-n", 2, "--steps", 2, "-o", "drawn", "-q")
    assert Image.open(tmp_path / "drawn" / "000001.png").size[0] in (8, 16)
    run("inspect-gates", "--patch", "run/patch.safetensors", "-o", "gates", "-q")
    run("train", "--resume", "-o", "run", "--steps", 2, "-q")
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(log) == 2


def test_folders_that_differ_in_a_field_of_the_scheduler_give_other_images(run: Run, tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "small": {"variance_type": "fixed_small"},
        "large": {"variance_type": "fixed_large"},
        "threshold": {"thresholding": True, "sample_max_value": 1.5, "clip_sample": False},
        "range": {"clip_sample_range": 0.5},
        "spacing": {"timestep_spacing": "leading"},
    }
    drawn = {}
    for name, changes in kinds.items():
        tiny_plain_unet().save_pretrained(tmp_path / name)
        write_scheduler(tmp_path / name, **{**DDPM, "timestep_spacing": "linspace", **changes})
        run("sample", "--backbone", name, "-n", 1, "--steps", 4, "-o", f"of-{name}", "-q")
        drawn[name] = (tmp_path / f"of-{name}" / "000000.png").read_bytes()
    assert len(set(drawn.values())) == len(kinds)
    write_scheduler(tmp_path / "small", **{**DDPM, "variance_type": "fixed_large"})
    refused = run("sample", "--backbone", "small", "-n", 2, "--steps", 4, "-o", "of-small", code=1)
    assert "variance_type" in refused.stderr or "schedule" in refused.stderr


@pytest.mark.parametrize("layout", checkpoints.LAYOUTS)
def test_every_layout_of_a_checkpoint_through_every_command(layout: str, run: Run, tmp_path: Path) -> None:
    """Each is the same backbone: one digest, one patch after a step, the same images."""
    tensors = {name: tensor.clone() for name, tensor in tiny_dit().state_dict().items()}
    torch.save(tensors, tmp_path / "bare.pt")
    torch.save(checkpoints.LAYOUTS[layout](tensors), tmp_path / "public.pt")
    data = write_images(tmp_path / "images")
    named = ("--num-classes", 4, "--num-heads", 2, "--vae", "none", "--device", "cpu", "-q")
    step = ("--steps", 1, "--batch-size", 2, "--sample-every", 0)
    for name in ("bare", "public"):
        source = ("--backbone", f"{name}.pt", *named)
        run("patch", *source, "-o", f"{name}-zero.safetensors")
        run("train", *source, "--data", data, *step, "-o", f"{name}-run")
        patch = f"{name}-run/patch.safetensors"
        run("sample", "--patch", patch, "-n", 1, "--steps", 2, "--sampler", "ddim", "-o", f"{name}-drawn", "-q")
    ours, theirs = (load_patch(tmp_path / f"{name}-run" / "patch.safetensors") for name in ("public", "bare"))
    assert same_weights(ours, theirs)
    assert ours.record is not None
    assert theirs.record is not None
    assert ours.record.backbone.digest == theirs.record.backbone.digest
    images = [(tmp_path / f"{name}-drawn" / "000000.png").read_bytes() for name in ("public", "bare")]
    assert images[0] == images[1]
    run("inspect-gates", "--patch", "public-run/patch.safetensors", "-o", "gates", "-q")
