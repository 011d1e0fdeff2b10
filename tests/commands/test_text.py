"""A text-conditional pipeline through every command: patch, train on captioned images, sample, inspect-gates."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dmp_cli import attach, load_patch
from dmp_cli.sampling import packed_records
from tests.backbones.pipelines import tiny_pixart, tiny_unet, write_captioned, write_pipeline
from tests.builders import write_images
from tests.commands.conftest import Run, files_in, parse

MAKERS = {"unet": (tiny_unet, "clip", 32), "pixart": (tiny_pixart, "t5", 16)}  # denoiser, text encoder, pixels


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pipeline(tmp_path: Path, kind: str) -> Path:
    make, text, _ = MAKERS[kind]
    return write_pipeline(tmp_path / "pipeline", make(), text=text)


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    return write_captioned(tmp_path / "captioned")


def train(run: Run, pipeline: Path, data: Path, folder: str, *more: Any) -> Path:
    steps = ["--steps", 3, "--batch-size", 4, "--lr", 0.01, "--sample-every", 0, "-q"]
    run("train", "--backbone", pipeline, "--data", data, *steps, *more, "-o", folder)
    return Path(folder)


def pixels(folder: Path, index: int) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{index:06d}.png"))


@pytest.mark.slow
def test_the_whole_story(run: Run, pipeline: Path, captioned: Path, kind: str, tmp_path: Path) -> None:
    size = MAKERS[kind][2]
    run("patch", "--backbone", pipeline, "-o", "zero.safetensors")
    folder = train(run, pipeline, captioned, "run", "--sample-every", 3)
    written = {name for name in files_in(folder) if not name.startswith("checkpoints/step-00000003/")}
    assert written == {"config.json", "log.jsonl", "run.toml", "patch.safetensors", "samples/step-00000003.png"}
    trained, zero = load_patch(folder / "patch.safetensors"), load_patch(Path("zero.safetensors"))
    assert all(bool(prompts.any()) for prompts in trained.prompts)
    assert not any(bool(prompts.any()) for prompts in zero.prompts)
    assert trained.record is not None
    assert trained.record.text is not None
    assert trained.record.image_size == size
    Path("lines.txt").write_text("# two\na red fox --d 7\n\ntwo cats --l 2\n")
    how = ["--sampler", "ddim", "--steps", 4, "-q"]
    run("sample", "--patch", folder / "patch.safetensors", "--prompts", "lines.txt", *how, "-o", "drawn")
    about = {".lock", "SHA256SUMS", "SHA256SUMS.records", "grid.png", "plan.jsonl", "samples.json"}
    assert files_in(Path("drawn")) == {"000000.png", "000001.png", *about}
    assert pixels(Path("drawn"), 0).shape == (size, size, 3)
    made = json.loads(Path("drawn/samples.json").read_text())["made"]
    assert [p["text"] for p in made["sample"]["prompts"]] == ["a red fox", "two cats"]
    run("sample", "--patch", "zero.safetensors", "--prompts", "lines.txt", *how, "-o", "zero")
    bare = ["sample", "--backbone", pipeline, "--prompts", "lines.txt", *how, "-o", "bare"]
    run(*bare)
    for index in range(2):
        assert np.array_equal(pixels(Path("zero"), index), pixels(Path("bare"), index))
    assert not np.array_equal(pixels(Path("drawn"), 0), pixels(Path("bare"), 0))
    run("inspect-gates", "--patch", folder / "patch.safetensors", "-o", "gates", "-q")
    assert {"gates.png", "gates.npz", "gates.csv", "summary.json", "block-00.png"} <= files_in(Path("gates"))


def test_a_prompt_with_its_own_seed_is_the_same_wherever_it_stands(run: Run, tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    how = ["--backbone", pipeline, "--sampler", "ddpm", "--steps", 4, "--batch-size", 1, "-q"]
    Path("one.txt").write_text("a red fox --d 7 --l 3\na blue bird\n")
    Path("two.txt").write_text("a blue bird\ntwo cats\na red fox --d 7 --l 3\n")
    run("sample", *how, "--prompts", "one.txt", "-o", "one")
    run("sample", *how, "--prompts", "two.txt", "-o", "two")
    assert np.array_equal(pixels(Path("one"), 0), pixels(Path("two"), 2))
    assert not np.array_equal(pixels(Path("one"), 1), pixels(Path("two"), 0))  # another place, another noise
    run("sample", *how, "--prompts", "one.txt", "-n", 4, "-o", "one")  # grows: each prompt again, from other noise
    assert not np.array_equal(pixels(Path("one"), 0), pixels(Path("one"), 2))


@pytest.mark.slow
def test_many_prompts_stand_in_the_record_as_a_digest(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    how = [
        "sample",
        "--backbone",
        pipeline,
        "--sampler",
        "ddim",
        "--steps",
        2,
        "--batch-size",
        1,
        "--prompts",
        "lines.txt",
        "-q",
    ]
    lines = ["a red fox --d 7", "two cats --l 2", "snow", "a house"]

    def draw(folder: str, number: int, code: int = 0) -> str:
        return run(*how, "-n", number, "-o", folder, code=code).stderr

    def record(folder: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Path(folder, "samples.json").read_text())["made"]["sample"]
        return found

    Path("lines.txt").write_text("\n".join(lines))
    draw("few", 4)
    draw("begun", 2)
    monkeypatch.setattr(packed_records, "FEW", 3)  # four are many from now on
    draw("many", 2)
    assert record("many")["prompts"] is None
    assert len(record("many")["prompt_file"]) == 64
    for folder in ("many", "begun"):  # the second was begun by a version that listed them all
        draw(folder, 4)
        assert all(np.array_equal(pixels(Path(folder), index), pixels(Path("few"), index)) for index in range(4))
    assert record("begun") == record("few")
    Path("lines.txt").write_text("\n".join([*lines[:3], "a hut"]))
    for folder in ("many", "begun"):
        assert "other settings: prompt" in draw(folder, 4, code=1)


def test_guidance_by_hand(run: Run, tmp_path: Path) -> None:
    """A line's guidance of 1 is the conditional prediction alone; --guidance is that of all other lines."""
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    how = ["--backbone", pipeline, "--sampler", "ddim", "--steps", 2, "--batch-size", 1, "-q"]
    run("sample", *how, "--prompt", "a red fox", "--guidance", 1, "--seed", 3, "-o", "plain")
    Path("line.txt").write_text("a red fox --l 1\n")
    run("sample", *how, "--prompts", "line.txt", "--guidance", 9, "--seed", 3, "-o", "line")
    run("sample", *how, "--prompt", "a red fox", "--guidance", 9, "--seed", 3, "-o", "guided")
    assert np.array_equal(pixels(Path("plain"), 0), pixels(Path("line"), 0))
    assert not np.array_equal(pixels(Path("plain"), 0), pixels(Path("guided"), 0))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_resumed_run_is_the_straight_one(run: Run, pipeline: Path, captioned: Path, dtype: str) -> None:
    # a grid in between looks captions up outside autocast, which the continued run does not
    straight = train(run, pipeline, captioned, "straight", "--dtype", dtype, "--sample-every", 2)
    train(run, pipeline, captioned, "stopped", "--steps", 2, "--dtype", dtype)
    run("train", "-o", "stopped", "--resume", "--steps", 3, "-q")
    assert (straight / "patch.safetensors").read_bytes() == Path("stopped/patch.safetensors").read_bytes()


def test_captions_and_their_dropout_matter(run: Run, captioned: Path, tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    learnt = {
        share: load_file(
            train(run, pipeline, captioned, f"run-{share}", "--class-dropout", share) / "patch.safetensors"
        )
        for share in (0, 1)
    }
    lines = [json.loads(line) for line in (captioned / "metadata.jsonl").read_text().splitlines()]
    silent = write_images(tmp_path / "silent", count=6, size=32, classes=0)
    for line in lines:
        (silent / line["file_name"]).with_suffix(".txt").write_text("")
    told = load_file(train(run, pipeline, silent, "run-silent", "--class-dropout", 0) / "patch.safetensors")
    assert all(torch.equal(learnt[1][name], told[name]) for name in told)
    assert not torch.equal(learnt[0]["prompts.0"], learnt[1]["prompts.0"])


def test_the_image_size_of_a_run_is_that_of_its_samples(run: Run, captioned: Path, tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    folder = train(run, pipeline, captioned, "small", "--image-size", 16)
    how = ["--prompt", "a fox", "--sampler", "ddim", "--steps", 2, "-q"]
    for size, options in ((16, []), (64, ["--image-size", 64])):
        run("sample", "--patch", folder / "patch.safetensors", *how, *options, "-o", f"drawn-{size}")
        assert pixels(Path(f"drawn-{size}"), 0).shape == (size, size, 3)
    full = train(run, pipeline, captioned, "full", "--image-size", 16, "--method", "full")
    run("sample", "--backbone", full / "backbone.safetensors", *how, "-o", "by-full")
    assert pixels(Path("by-full"), 0).shape == (16, 16, 3)


def test_full_and_lora_of_a_unet(run: Run, captioned: Path, tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    how = ["--prompt", "a fox", "--sampler", "ddim", "--steps", 2, "-q"]
    full = train(run, Path("pipeline"), captioned, "full", "--method", "full")
    run("sample", "--backbone", full / "backbone.safetensors", *how, "-o", "by-full")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")  # what the file remembers is found from anywhere
    run("sample", "--backbone", tmp_path / "full" / "backbone.safetensors", *how, "-o", "again")
    assert np.array_equal(pixels(Path("again"), 0), pixels(tmp_path / "by-full", 0))
    os.chdir(tmp_path)
    lora = train(run, pipeline, captioned, "lora", "--method", "lora")
    run("sample", "--backbone", pipeline, "--adapter", lora / "adapter", *how, "-o", "by-lora")
    run("sample", "--backbone", pipeline, *how, "-o", "bare")
    drawn = [pixels(Path(name), 0) for name in ("by-full", "by-lora", "bare")]
    assert not np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[1], drawn[2])

    from peft import PeftModel

    stock = tiny_unet()
    adapted = PeftModel.from_pretrained(stock, str(lora / "adapter"))  # peft itself, on the stock U-Net
    ups = {name: p for name, p in adapted.named_parameters() if "lora_B" in name}
    assert ups
    assert all(bool(p.any()) for p in ups.values())


def test_a_patch_inside_a_stock_pipeline(run: Run, captioned: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    folder = train(run, pipeline, captioned, "run")
    unet = UNet2DConditionModel.from_pretrained(pipeline / "unet", low_cpu_mem_usage=False)
    x, text = torch.randn(1, 4, 16, 16), torch.randn(1, 16, 32)
    bare = unet(x, 5, text).sample
    patched = attach(unet, load_patch(folder / "patch.safetensors"))
    assert not torch.equal(unet(x, 5, text).sample, bare)
    patched.detach()
    assert torch.equal(unet(x, 5, text).sample, bare)


def test_bad_input(run: Run, captioned: Path, tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(b"never read")  # what is said below is said before a weight is read
    bare_images = write_images(tmp_path / "bare", count=3, size=32, classes=0)
    base = ["train", "--backbone", pipeline, "--data", captioned]
    for arguments, message in [
        (["train", "--backbone", pipeline, "--data", bare_images], "3 or more images have no caption"),
        ([*base, "--position", "prepend"], "--position prepend is for token backbones"),
        ([*base, "--selection", "hard"], "--selection hard"),
        ([*base, "--depth", "6"], "this backbone has 5 blocks"),
        ([*base, "--gate-input", "conditioning"], "its gate can read the timestep"),
        (["patch", "--backbone", pipeline, "--depth", "6", "-o", "p.safetensors"], "this backbone has 5 blocks"),
    ]:
        assert message in " ".join(run(*arguments, code=1).stderr.split())
    weights.write_bytes(kept)
    Path("bad.txt").write_text("a fox\na bird --q 3\n")
    for options, message in [
        ([], "this backbone reads text, and no prompt is given"),
        (["--prompt", "a", "--prompts", "bad.txt"], "two sources of text"),
        (["--prompts", "bad.txt"], "bad.txt, line 2: --q is unknown"),
        (["--prompts", "none.txt"], "cannot read --prompts none.txt"),
        (["--prompt", "a", "--image-size", "33"], "multiple of 2 pixels"),
        (["--prompt", "a", "--classes", "1"], "no classes"),
    ]:
        result = run("sample", "--backbone", pipeline, *options, "-o", "never", code=1)
        assert message in " ".join(result.stderr.split())
    run("sample", "--backbone", "digits", "--prompt", "a seven", "-o", "never", code=1)
    assert not Path("never").exists()
    assert not Path("runs").exists()


def test_another_text_encoder_is_refused(run: Run, captioned: Path, tmp_path: Path) -> None:
    from tests.backbones.text_encoders import write_clip

    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    patch = train(run, pipeline, captioned, "run") / "patch.safetensors"
    write_clip(pipeline, seed=1)
    how = ["--patch", patch, "--prompt", "a fox", "--steps", 4, "-q"]
    assert "another text encoder" in run("sample", *how, "-o", "never", code=1).stderr
    run("sample", *how, "--force-backbone", "-o", "forced")


def test_counts_without_weights(run: Run) -> None:
    counts = parse(run("patch", "--backbone", "sd-v1.5", "--json"))
    assert (counts["backbone_parameters"], counts["patch_parameters"]) == (859_520_964, 2_889_728)


def test_a_plain_unet_in_pixel_space(run: Run, tmp_path: Path) -> None:
    from tests.backbones.pipelines import tiny_plain_unet, write_scheduler

    tiny_plain_unet().save_pretrained(tmp_path / "church")
    write_scheduler(tmp_path / "church", beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
    images = write_images(tmp_path / "images", count=4, classes=0)
    how = ["--backbone", "church", "--data", images, "--steps", 2, "--batch-size", 2, "--sample-every", 0, "-q"]
    run("train", *how, "-o", "run")
    run("sample", "--patch", "run/patch.safetensors", "-n", 2, "--steps", 3, "-q", "-o", "drawn")
    run("sample", "--patch", "run/patch.safetensors", "--no-patch", "-n", 2, "--steps", 3, "-q", "-o", "bare")
    assert pixels(Path("drawn"), 0).shape == (8, 8, 3)
    run("inspect-gates", "--patch", "run/patch.safetensors", "-q", "-o", "gates")
    assert json.loads(Path("gates/summary.json").read_text())["num_prompts"] == 64
