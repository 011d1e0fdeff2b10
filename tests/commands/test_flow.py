"""A tiny SiT and REPA through every command, from one file, and what contradicts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli import attach, load_backbone, load_patch
from dmp_cli.diffusion import make_process
from dmp_cli.errors import PatchError
from tests.builders import TINY, tiny_dit, write_images, write_weights
from tests.zoo.checkpoints import REPA_ARGS, SIT_ARGS, repa_checkpoint, training_checkpoint

from .conftest import Run

TRAIN = ("--steps", 2, "--batch-size", 2, "--lr", 0.01, "--workers", 0, "--device", "cpu", "-q")
LATENT = ("--num-heads", 2, "--vae", "none")


@pytest.fixture
def sit(tmp_path: Path) -> tuple[Any, ...]:
    """A bare file of a SiT with 8 output channels, as the public one has for 4, and the options that name it."""
    path = write_weights(tmp_path / "sit.pt", tiny_dit(depth=2).state_dict())
    return "--backbone", path, "--num-classes", 4, "--num-heads", 2, "--objective", "sit"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def pixels_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("0*.png"))]


def record_of(path: Path) -> dict[str, Any]:
    found = load_patch(path).record
    assert found is not None
    return found.schedule.model_dump()


def test_every_command_on_a_sit(run: Run, sit: tuple[Any, ...], data: Path, tmp_path: Path) -> None:
    run("patch", *sit, "-o", "zero.safetensors", "-q")
    assert record_of(tmp_path / "zero.safetensors")["flow"] == "sit"
    other = write_images(tmp_path / "other", seed=1)
    held_out = ("--val-data", other, "--val-draws", 40)
    run("train", *sit, "--data", data, *TRAIN, *held_out, "-o", "run")
    patch = tmp_path / "run" / "patch.safetensors"
    assert record_of(patch)["prediction"] == "velocity"
    bands = [line for line in map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
             if "held_out" in line][-1]["held_out"]["bands"]  # fmt: skip
    assert [(band["from"], band["to"]) for band in bands][:2] == [(1, 0.9), (0.9, 0.8)]
    run("sample", "--patch", patch, "-n", 4, "--steps", 4, "--guidance", 2, "-o", "out", "-q")
    made = json.loads((tmp_path / "out/samples.json").read_text())["made"]
    assert (made["sample"]["sampler"], made["schedule"]["flow"]) == ("sde-euler", "sit")
    draw = ("--patch", patch, "-n", 4, "--steps", 4)
    run("sample", *draw, "--sampler", "ode-heun", "--against", "base", "-o", "b", "-q")
    run("sample", *draw[:2], "-n", 5, *draw[4:], "--against", "base", "-o", "b", "-q")  # goes on with its sampler
    assert len(pixels_of(tmp_path / "b")) == 5
    assert "loss" in run("eval", "--loss", "--patch", patch, *held_out, "-o", "e").stdout
    run("inspect-gates", "--patch", patch, "--data", data, "--num-images", 2, "-o", "gates", "-q")
    levels = np.load(tmp_path / "gates/gates.npz")["timesteps"]
    assert (levels[0], levels[-1], len(levels)) == (1, 0, 1000)
    assert (tmp_path / "gates/gates.csv").read_text().splitlines()[2].startswith("0,0.999,")
    assert (tmp_path / "gates/added.csv").read_text().splitlines()[1].startswith("0,1,")
    result = run("patch", "--export", patch, "--sampler", "ode-euler", "--steps", 4, "-o", "t.safetensors", "--json")
    assert json.loads(result.stdout)["timesteps"] == [0, 0.25, 0.5, 0.75]
    assert "linear flow of sit" in run("patch", "--info", patch).stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "prompt-tuning"),
        ("--method", "lora"),
        ("--method", "full"),
        ("--experts", "lora", "--gate-input", "conditioning"),
    ],
)
def test_every_method_trains_on_a_sit(
    run: Run, sit: tuple[Any, ...], data: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    run("train", *sit, "--data", data, *TRAIN, *options, "-o", "run")
    draw = ("--steps", 2, "-n", 2, "-o", "out", "-q")
    if "lora" in options and "--method" in options:
        run("sample", *sit, "--adapter", "run/adapter", *draw)
    elif "full" in options:
        run("sample", "--backbone", "run/backbone.safetensors", *draw)
        stated = json.loads((tmp_path / "out/samples.json").read_text())["made"]["schedule"]
        assert stated["flow"] == "sit"
        said = run("sample", "--backbone", "run/backbone.safetensors", "--objective", "epsilon", *draw, code=1).stderr
        assert "--objective epsilon contradicts" in said
    else:
        run("sample", "--patch", "run/patch.safetensors", *draw)
    assert len(pixels_of(tmp_path / "out")) == 2


def test_a_run_goes_on_and_a_folder_is_completed_to_the_same_bytes(
    run: Run, sit: tuple[Any, ...], data: Path, tmp_path: Path
) -> None:
    how = ("--batch-size", 2, "--lr", 0.01, "--workers", 0, "--device", "cpu", "-q")
    run("train", *sit, "--data", data, *how, "--steps", 4, "-o", "whole")
    run("train", *sit, "--data", data, *how, "--steps", 2, "-o", "parts")
    run("train", "--resume", "-o", "parts", "--steps", 4, "-q")
    whole, parts = (load_patch(tmp_path / name / "patch.safetensors") for name in ("whole", "parts"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    draw = ("--patch", "whole/patch.safetensors", "--steps", 3, "--batch-size", 2, "--guidance", 3, "-q")
    run("sample", *draw, "-n", 6, "-o", "once")
    run("sample", *draw, "-n", 3, "-o", "twice")
    (tmp_path / "twice/000001.png").unlink()  # as after a kill
    run("sample", *draw, "-n", 6, "-o", "twice")
    assert pixels_of(tmp_path / "once") == pixels_of(tmp_path / "twice")


def test_a_patch_of_a_sit_is_not_one_of_the_same_weights_as_a_dit(
    run: Run, sit: tuple[Any, ...], tmp_path: Path
) -> None:
    path, told = str(sit[1]), {"num_classes": 4, "num_heads": 2}
    run("patch", *sit, "-o", "sit.safetensors", "-q")
    run("patch", *sit[:-2], "-o", "dit.safetensors", "-q")
    for name, objective in (("sit", "epsilon"), ("dit", "sit"), ("sit", "repa")):
        patch = load_patch(tmp_path / f"{name}.safetensors")
        with pytest.raises(PatchError, match=f"another backbone: --objective .*, not {objective} "):
            attach(load_backbone(path, **told, objective=objective), patch)
    said = run("sample", "--patch", "sit.safetensors", "--objective", "epsilon", "-n", 1, "-o", "x", code=1).stderr
    assert "--objective epsilon contradicts the patch, which was made for sit" in said


def test_one_image_is_learnt(run: Run, sit: tuple[Any, ...], tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", classes=0, count=1)
    made = write_weights(tmp_path / "one.pt", tiny_dit(num_classes=1, null_row=False).state_dict())
    how = ("--steps", 200, "--batch-size", 8, "--lr", 0.05, "--gate-scale", 16, "--no-flip", "--workers", 0, "-q")
    named = ("--backbone", made, "--num-heads", 2, "--objective", "sit")
    run("train", *named, "--data", one, *how, "--device", "cpu", "-o", "run")
    backbone = load_backbone(made, num_heads=2, objective="sit")
    patched, process = attach(backbone, load_patch(tmp_path / "run/patch.safetensors")), make_process(backbone.schedule)
    pixels = np.array(Image.open(next(one.glob("*.png"))))
    x0 = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().expand(64, -1, -1, -1) / 127.5 - 1
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    levels = process.levels(torch.arange(64).double() / 64)
    xt, labels = process.add_noise(x0, noise=noise, timesteps=levels), torch.zeros(64, dtype=torch.int64)

    def loss() -> float:
        with torch.no_grad():
            found = patched(xt, levels, labels)
        return process.loss(found, x0=x0, xt=xt, noise=noise, timesteps=levels).total.mean().item()

    learnt = loss()
    with patched.disabled():
        assert learnt < 0.75 * loss()


def test_training_from_scratch_and_guidance_away_from_another_flow(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text(json.dumps({**TINY, "learn_sigma": False}))
    named = ("--backbone", "sizes.json", "--method", "scratch", "--vae", "none", "--objective", "repa")
    for name, kind in (("a", "linear"), ("b", "linear"), ("c", "cosine")):
        seed = ("--seed", ord(name))
        run("train", *named, "--schedule", kind, "--data", data, *TRAIN, *seed, "-o", name)
    draw = ("sample", "--backbone", "a/backbone.safetensors", "--steps", 2, "-n", 2)
    run(*draw, "--against", "b/backbone.safetensors", "-o", "out", "-q")
    made = json.loads((tmp_path / "out/samples.json").read_text())["made"]
    assert (made["schedule"]["flow"], made["sample"]["guidance_channels"]) == ("repa", "all")
    said = run(*draw, "--against", "c/backbone.safetensors", "-o", "other", code=1).stderr
    assert "was trained under another noise schedule" in said


@pytest.mark.parametrize("flow", ["sit", "repa"])
def test_training_checkpoints_of_sit_and_repa(run: Run, data: Path, tmp_path: Path, flow: str) -> None:
    args = {**(SIT_ARGS if flow == "sit" else REPA_ARGS), "num_classes": 4}
    write = training_checkpoint if flow == "sit" else repa_checkpoint
    torch.save(write(tiny_dit(learn_sigma=flow == "sit").state_dict(), args), tmp_path / "a.pt")
    shown = run("train", "--backbone", "a.pt", *LATENT, "--data", data, *TRAIN[:-1], "-o", "run").stderr
    assert ("left out 4 tensors projectors.*" in shown) == (flow == "repa")
    assert "assumed" not in shown
    run("sample", "--patch", "run/patch.safetensors", "--steps", 2, "-n", 2, "-o", "out", "-q")
    assert record_of(tmp_path / "run/patch.safetensors")["flow"] == flow


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("sample", "--sampler", "ddim", "-n", 1), "--sampler ddim removes the noise of a DDPM"),
        (("sample", "--steps", 1, "-n", 1), "sde-euler takes at least 2"),
        (("convert",), "and this backbone is a flow (sit)"),
        (("sample", "--schedule", "scaled_linear", "-n", 1), "the flow of sit has linear, cosine or vp"),
    ],
)
def test_refusals(run: Run, sit: tuple[Any, ...], tmp_path: Path, command: tuple[Any, ...], words: str) -> None:
    said = run(*command, *sit, "-o", "out", code=1).stderr
    assert words in " ".join(said.split())
    assert not (tmp_path / "out").exists()
