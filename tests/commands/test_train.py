"""``dmp train``: what it writes, how it resumes, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmp_cli.backbones import load_backbone
from dmp_cli.patching.file import load_patch
from tests.builders import tiny_dit, write_images, write_meta_checkpoint

from .conftest import Run, files_in, parse

CHECKPOINT_FILES = {f"{name}.safetensors" for name in ("ema", "helpers", "learnt", "optimizer")} | {"manifest.json"}

ADAPTER_FILES = {"adapter_config.json", "adapter_model.safetensors", "dmp.json"}


def expected_files(*steps: int, learnt: set[str]) -> set[str]:
    states = {f"checkpoints/step-{step:08d}/{name}" for step in steps for name in CHECKPOINT_FILES}
    return states | {"config.json", "log.jsonl"} | learnt


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
    assert "other settings: lora_rank" in run("train", "--resume", "-o", "out", "--lora-rank", 4, code=1).stderr
    run(*common[:-1], "other", "--steps", 1, "--dry-run", "-q")
    run("train", *backbone, "--data", images, "--steps", 1, "--batch-size", 2, "-o", "out", "--force", "-q")
    assert files_in(tmp_path / "out") == expected_files(1, learnt={"patch.safetensors"})


def test_lora_without_peft(
    run: Run, backbone: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    result = run("train", *backbone, "--data", images, "--method", "lora", "-o", "out", code=1)
    assert "--method lora needs peft" in result.stderr
    assert "pip install 'dmp-cli[lora]'" in result.stderr
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


def recipe(images: Path, *, steps: int, out: str) -> list[str]:
    """Ten steps pass two epochs of eight images; everything a run can carry on is on."""
    more = ["--batch-size", "4", "--ema", "0.9", "--warmup", "4", "--workers", "0", "--log-every", "2", "-q"]
    return ["--data", str(images), "--steps", str(steps), "--save-every", "3", *more, "-o", out]


LEARNT = {"dmp": "patch{}.safetensors", "full": "backbone{}.safetensors", "lora": "adapter{}/adapter_model.safetensors"}


@pytest.mark.parametrize("method", LEARNT)
@pytest.mark.parametrize("first", [1, 4, 7])
def test_resume_is_bit_for_bit(
    method: str, first: int, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    common = ["train", *backbone, "--method", method]
    run(*common, *recipe(images, steps=10, out="straight"))
    run(*common, *recipe(images, steps=first, out="parts"))
    run("train", "--resume", "-o", "parts", "--steps", 10, "-q")
    for name in (LEARNT[method].format(average) for average in ("", "-ema")):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_workers_and_micro_batches_train_the_same(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    common = ["train", *backbone, "--data", images, "--steps", 3, "--batch-size", 4, "--lr", 0.01, "-q"]
    run(*common, "-o", "a")
    run(*common, "-o", "b", "--workers", 2)
    run(*common, "-o", "c", "--micro-batch-size", 2)
    a, b, c = (load_file(tmp_path / name / "patch.safetensors") for name in "abc")
    for name, value in a.items():
        assert torch.equal(value, b[name])
        torch.testing.assert_close(value, c[name], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_trains_and_resumes(
    dtype: str, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    common = ["train", *backbone, "--data", images, "--batch-size", 4, "--dtype", dtype, "-q"]
    run(*common, "--steps", 4, "-o", "straight")
    run(*common, "--steps", 2, "-o", "parts")
    run(*common, "--steps", 4, "-o", "parts", "--resume")
    straight = (tmp_path / "straight" / "patch.safetensors").read_bytes()
    assert (tmp_path / "parts" / "patch.safetensors").read_bytes() == straight


def start_training(backbone: list[str], images: Path, out: Path, *, steps: int) -> subprocess.Popen[str]:
    options = ["--data", str(images), "--steps", str(steps), "--batch-size", "4", "--save-every", "5"]
    command = [sys.executable, "-m", "dmp_cli", "train", *backbone, *options, "-o", str(out), "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def states(out: Path) -> set[str]:
    return {path.name for path in (out / "checkpoints").glob("step-????????")}


def wait_for_state(out: Path, process: subprocess.Popen[str], *, before: frozenset[str] = frozenset()) -> None:
    while not states(out) - before and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on(
    number: signal.Signals, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    process = start_training(backbone, images, tmp_path / "out", steps=100_000)
    wait_for_state(tmp_path / "out", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "saved, continue with --resume" in errors
    assert "Traceback" not in errors
    record = load_patch(tmp_path / "out" / "patch.safetensors").record
    assert record is not None
    assert record.training is not None
    done = record.training["steps_done"]
    run("train", "--resume", "-o", "out", "--steps", done + 3, "-q")
    run(
        *("train", *backbone, "--data", images, "--steps", done + 3, "--batch-size", 4, "--save-every", 5),
        *("-o", "straight", "-q"),
    )
    straight = (tmp_path / "straight" / "patch.safetensors").read_bytes()
    assert (tmp_path / "out" / "patch.safetensors").read_bytes() == straight


@pytest.mark.slow
def test_kill_9_three_times_ends_with_the_same_bytes(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    for delay in (0.0, 0.007, 0.015):
        before = frozenset(states(tmp_path / "out"))
        process = start_training(backbone, images, tmp_path / "out", steps=100_000)
        wait_for_state(tmp_path / "out", process, before=before)
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert states(tmp_path / "out") - before
    steps = 10 + max(int(name.removeprefix("step-")) for name in states(tmp_path / "out"))
    run("train", "--resume", "-o", "out", "--steps", steps, "-q")
    options = ["--steps", steps, "--batch-size", 4, "--save-every", 5, "-o", "straight", "-q"]
    run("train", *backbone, "--data", images, *options)
    straight = (tmp_path / "straight" / "patch.safetensors").read_bytes()
    assert (tmp_path / "out" / "patch.safetensors").read_bytes() == straight
    assert not [name for name in files_in(tmp_path / "out") if ".partial" in name]


def test_a_loss_that_is_not_finite_stops_with_the_last_good_patch(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    result = run(
        *("train", *backbone, "--data", images, "--steps", 50, "--batch-size", 4, "--method", "prompt-tuning"),
        *("--lr", 1e30, "-o", "out"),
        code=1,
    )
    assert "not all finite" in result.stderr
    assert "Traceback" not in result.stderr
    for value in load_file(tmp_path / "out" / "patch.safetensors").values():
        assert value.isfinite().all()


def test_bad_images_are_named_counted_and_skipped(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    (images / "0" / "broken.png").write_bytes(b"\x89PNG nothing more")
    options = ["train", *backbone, "--data", images, "--batch-size", 9, "--steps", 2]
    result = run(*options, "-o", "out", "--json")
    assert parse(result)["skipped_images"] == 1
    assert "broken.png" in result.stderr
    assert "broken.png" in (tmp_path / "out" / "log.jsonl").read_text()
    assert "broken.png" in run(*options, "-o", "strict", "--max-bad", 0, code=1).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lr", "-1"], "--lr -1.0"),
        (["--batch-size", "4", "--micro-batch-size", "3"], "does not divide"),
        (["--depth", "9"], "this backbone has 3 blocks"),
        (["--depth", "0"], "leaves nothing to train"),
        (["--method", "full", "--gate", "none"], "trains no patch"),
        (["--method", "lora", "--gate", "none"], "trains no patch"),
        (["--method", "full", "--lora-rank", "4"], "trains no adapter"),
        (["--method", "lora", "--lora-rank", "0"], "--lora-rank 0"),
        (["--method", "lora", "--lora-targets", "qkv, to_q"], "'to_q': no linear layer of a block has this name"),
        (["--method", "prompt-tuning", "--gate", "constant"], "has no gate"),
        (["--image-size", "16"], "make images of 8 pixels"),
        (["--device", "cuda:7"], "this machine has"),
        (["--device", "gpu"], "no such kind of device"),
        (["--config", "missing.toml"], "cannot read --config"),
        (["--vae", "no-such-folder"], "does not exist"),
    ],
)
def test_bad_options(
    options: list[str], message: str, run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    result = run("train", *backbone, "--data", images, "--steps", 1, *options, "-o", "out", code=1)
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_data_that_does_not_fit(run: Run, backbone: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    flat, two = write_images(tmp_path / "flat", classes=0), write_images(tmp_path / "two", classes=2)
    for data, message in ((empty, "no image"), (tmp_path / "none", "none"), (flat, "no class folders"), (two, "has 2")):
        result = run("train", *backbone, "--data", data, "--steps", 1, "-o", "out", code=1)
        assert message in result.stderr.lower()
        assert not (tmp_path / "out").exists()


def test_an_existing_run_is_not_overwritten(run: Run, backbone: list[str], images: Path, patch: Path) -> None:
    before = patch.read_bytes()
    common = ["train", *backbone, "--data", images, "--batch-size", 4, "-o", "trained"]
    assert "exists already" in run(*common, "--steps", 1, code=1).stderr
    assert "other settings: lr" in run(*common, "--steps", 9, "--resume", "--lr", 0.5, code=1).stderr
    assert patch.read_bytes() == before
    run(*common, "--steps", 1, "--force", "-q")
    assert patch.read_bytes() != before


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    run("train", *backbone, *recipe(images, steps=6, out="out"))
    newest = tmp_path / "out" / "checkpoints" / "step-00000006" / "learnt.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    result = run("train", "--resume", "-o", "out", "--steps", 10)
    assert "step-00000006 is damaged" in result.stderr
    run("train", *backbone, *recipe(images, steps=10, out="straight"))
    straight = (tmp_path / "straight" / "patch.safetensors").read_bytes()
    assert (tmp_path / "out" / "patch.safetensors").read_bytes() == straight


def test_options_from_a_file_and_the_command_line_wins(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    own = '[train]\nmethod = "prompt-tuning"\n[sample]\nsteps = 3\n'
    Path("options.toml").write_text(f"batch-size = 2\nlr = 0.5\n{own}")
    result = run(
        *("train", *backbone, "--data", images, "--config", "options.toml", "--lr", 0.25, "--dry-run", "--json")
    )
    plan = parse(result)
    assert plan["train"]["batch_size"] == 2
    assert plan["train"]["lr"] == 0.25
    assert plan["train"]["method"] == "prompt-tuning"
    assert not (tmp_path / "runs").exists()
    Path("typo.toml").write_text("bach-size = 2\n")
    assert "bach_size" in run("train", *backbone, "--data", images, "--config", "typo.toml", code=1).stderr


def test_tensorboard_events(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run("train", *backbone, "--data", images, "--steps", 1, "--batch-size", 2, "--tensorboard", "-o", "out", "-q")
    assert list((tmp_path / "out" / "tensorboard").glob("events.out.tfevents.*"))


def test_a_full_disk_says_so_and_leaves_no_half_file(
    run: Run, backbone: list[str], images: Path, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = patch.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    result = run("train", "--resume", "-o", "trained", "--steps", 5, code=1)
    assert "no space left on the disk" in result.stderr
    assert patch.read_bytes() == before
    assert not [name for name in files_in(tmp_path) if ".partial" in name]


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


def test_a_run_of_an_earlier_version_goes_on(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    run("train", *backbone, *recipe(images, steps=2, out="out"))
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    del settings["train"]["warmup"], settings["patch"]["selection"]  # as if they had come later; 4 was asked for
    (tmp_path / "out" / "config.json").write_text(json.dumps(settings))
    assert "other settings: warmup" in run("train", "--resume", "-o", "out", "--steps", 3, code=1).stderr
    settings["train"]["warmup"] = 4
    (tmp_path / "out" / "config.json").write_text(json.dumps(settings))
    run("train", "--resume", "-o", "out", "--steps", 3, "-q")


def test_other_images_are_another_run(run: Run, backbone: list[str], images: Path, patch: Path) -> None:
    write_images(images, count=12)
    assert "other settings: images" in run("train", "--resume", "-o", "trained", "--steps", 5, code=1).stderr


def test_presets_give_way_to_a_config_and_the_command_line(run: Run, images: Path, backbone: list[str]) -> None:
    Path("own.toml").write_text("[train]\nbatch-size = 4\nlr = 0.5\n")
    plan = ["train", "--preset", "paper-ffhq-l2", "--data", images, "--dry-run", "--json"]
    plain = parse(run(*plan))
    assert (plain["backbone"], plain["train"]["steps"], plain["train"]["batch_size"]) == ("dit-l2", 50_000, 128)
    mixed = parse(run(*plan, "--config", "own.toml", "--lr", 0.25))
    assert (mixed["train"]["steps"], mixed["train"]["batch_size"], mixed["train"]["lr"]) == (50_000, 4, 0.25)
    refused = run("train", "--preset", "paper-ffhq-xl", "--data", images, code=1).stderr
    assert "there is no such preset" in refused
    assert "paper-ffhq-" in refused
    small = ["--steps", 2, "--batch-size", 4, "--image-size", 8, "--sample-every", 0, "-q"]
    run("train", "--preset", "paper-ffhq-b2", *backbone, "--data", images, *small, "-o", "run")
    for again in ([], ["--preset", "paper-ffhq-b2"]):  # said again, it does not undo what was said instead of it
        run("train", "--resume", "-o", "run", *again, "--steps", 3, "-q")
        assert json.loads(Path("run/config.json").read_text())["train"]["batch_size"] == 4
    other = run("train", "--resume", "-o", "run", "--preset", "paper-sd15", code=1).stderr
    assert "was begun with paper-ffhq-b2, not with paper-sd15" in other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gate-noise", "--gate", "constant"], "--gate constant has none"),
        (["--gate-noise", "--method", "prompt-tuning"], "has no gate"),
        (["--gate", "attention", "--depth", 9], "this backbone has 3 blocks"),
    ],
)
def test_gate_options_without_a_gate(
    run: Run, images: Path, backbone: list[str], options: list[object], message: str
) -> None:
    assert message in run("train", *backbone, "--data", images, *options, "-o", "never", code=1).stderr
    assert not Path("never").exists()


def test_the_attention_gate_with_noise_resumes_bit_for_bit(run: Run, images: Path, backbone: list[str]) -> None:
    how = [*backbone, "--data", images, "--batch-size", 4, "--gate", "attention", "--gate-noise", "--lr", 0.1, "-q"]
    run("train", *how, "--steps", 4, "-o", "straight")
    run("train", *how, "--steps", 2, "-o", "stopped")
    run("train", "--resume", "--steps", 4, "-o", "stopped", "-q")
    assert Path("straight/patch.safetensors").read_bytes() == Path("stopped/patch.safetensors").read_bytes()
    run("inspect-gates", "--patch", "straight/patch.safetensors", "-o", "gates", "-q")
    assert "attention gate" in run("patch", "--info", "straight/patch.safetensors").stdout
