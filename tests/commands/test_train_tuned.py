"""``dmp train --method bitfit`` and ``difffit``, from the first step to samples and scores, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmp_cli.backbones import load_backbone
from dmp_cli.config import TunedMethod
from dmp_cli.patching import load_tuned
from tests.backbones.pipelines import tiny_pixart, tiny_unet, write_captioned, write_pipeline
from tests.builders import tiny_dit, write_meta_checkpoint
from tests.patching.test_tuned import NAMES

from .conftest import Run, files_in, parse
from .samples import QUICK, bytes_of, pixels
from .train_runs import expected_files

HOW = ["--batch-size", 4, "--lr", 0.1, "-q"]


def tuned(run: Run, backbone: list[str], images: Path, method: str = "difffit", out: str = "run") -> Path:
    run("train", *backbone, "--data", images, "--method", method, "--steps", 2, *HOW, "-o", out)
    return Path(out) / "tuned.safetensors"


@pytest.mark.parametrize("method", ["bitfit", "difffit"])
def test_training_sampling_and_scores(run: Run, backbone: list[str], images: Path, method: TunedMethod) -> None:
    more = ["--ema", 0.9, "--sample-every", 2]
    result = run("train", *backbone, "--data", images, "--method", method, "--steps", 2, *HOW[:-1], *more, "-o", "run")
    assert f"{method}: {728 if method == 'bitfit' else 904} parameters learnt" in result.stderr
    learnt = {"tuned.safetensors", "tuned-ema.safetensors", "samples/step-00000002.png"}
    assert files_in(Path("run")) == expected_files(2, learnt=learnt)
    file, loaded = Path("run/tuned.safetensors"), load_backbone(backbone[1], num_classes=4, num_heads=2)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    assert load_file(file).keys() == NAMES["dit"](method)
    tensors = load_tuned(file, loaded).parameters
    changed = {name for name, tensor in loaded.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in tensors if not name.endswith(".gamma")}
    assert not any((gamma == 1).any() for name, gamma in tensors.items() if name.endswith(".gamma"))
    draw = ["sample", *backbone, "-n", 2, *QUICK]
    run(*draw, "--adapter", file, "-o", "with")
    run(*draw, "-o", "bare")
    assert bytes_of(Path("with"), 2) != bytes_of(Path("bare"), 2)
    made = json.loads(Path("with/samples.json").read_text())["made"]
    assert (made["adapter"], made["patch"]) == (hashlib.sha256(file.read_bytes()).hexdigest(), None)
    scored = ["--samples", "bare", "--samples", "with", "--reference", "bare", "--features", "pixels", "--bootstrap", 0]
    assert len(parse(run("eval", *scored, "-q", "--json"))["rows"]) == 2
    told = run("patch", "--info", Path("run/tuned-ema.safetensors")).stdout
    assert f"tuned      {method}, {728 if method == 'bitfit' else 904} weights in place of the backbone's own" in told
    assert f"{method}, 2 steps of 4 images from images (8 images), lr 0.1, seed 0, averaged with decay 0.9" in told
    assert parse(run("patch", "--info", file, "--json"))["parameters"] == sum(t.numel() for t in tensors.values())


def test_against_it_and_against_the_base(run: Run, backbone: list[str], images: Path) -> None:
    """Without a distance the bytes are those of ours alone; with one the two directions differ."""
    file = tuned(run, backbone, images)
    asked = {"ours": [*backbone, "--adapter", file], "bare": backbone}
    drawn = {}
    for name, words in asked.items():
        other = "base" if name == "ours" else file
        run("sample", *words, "-n", 2, *QUICK, "-o", name)
        for scale in (0, 1):
            how = ["--against", other, "--against-scale", scale]
            run("sample", *words, "-n", 2, *QUICK, *how, "-o", f"{name}-{scale}")
        drawn[name] = bytes_of(Path(f"{name}-1"), 2)
        assert bytes_of(Path(f"{name}-0"), 2) == bytes_of(Path(name), 2)
        made = json.loads(Path(f"{name}-1/samples.json").read_text())["made"]
        assert made["against"] == ("base" if name == "ours" else hashlib.sha256(file.read_bytes()).hexdigest())
    assert drawn["ours"] != drawn["bare"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pixart", "unet"])
def test_of_captions(kind: str, run: Run, tmp_path: Path) -> None:
    make, text = {"pixart": (tiny_pixart, "t5"), "unet": (tiny_unet, "clip")}[kind]
    pipeline = ["--backbone", str(write_pipeline(tmp_path / "pipeline", make(), text=text))]
    file = tuned(run, pipeline, write_captioned(tmp_path / "captioned"))
    assert load_file(file).keys() == NAMES[kind]("difffit")
    how = ["--prompt", "a fox", "--sampler", "ddim", "--steps", 2, "-n", 1, "-q"]
    asked = {"bare": [], "with": ["--adapter", file], "from-base": ["--adapter", file, "--against", "base"]}
    asked["from-it"] = ["--against", file]
    images = {}
    for name, words in asked.items():
        run("sample", *pipeline, *how, *words, "-o", name)
        images[name] = pixels(Path(name), 1)
    for name in ("with", "from-base", "from-it"):
        assert (images[name] != images["bare"]).any()


def test_what_is_refused(run: Run, backbone: list[str], images: Path, patch: Path, tmp_path: Path) -> None:
    file = tuned(run, backbone, images)
    other = write_meta_checkpoint(tmp_path / "other.pt", tiny_dit(seed=5))
    Path("cut.safetensors").write_bytes(file.read_bytes()[:-5])
    adapted = [*backbone, "--adapter", file]
    refused = {
        "was trained on another backbone": ["--backbone", other, *backbone[2:], "--adapter", file],
        "cut.safetensors is not a readable file of tuned weights": [*backbone, "--adapter", "cut.safetensors"],
        "holds no tuned weights": [*backbone, "--adapter", patch],
        "cannot read nowhere.safetensors": [*backbone, "--adapter", "nowhere.safetensors"],
        "holds tuned weights of a backbone, and is not a patch": ["--patch", file],
        "--adapter goes without a patch": [*adapted, "--patch", patch],
        "cut.safetensors is not a readable safetensors file": [*backbone, "--against", "cut.safetensors"],
        "an adapter works against the bare backbone only": [*adapted, "--against", file],
        "tuned.safetensors belongs to an unknown family": ["--backbone", file],
    }
    before = files_in(tmp_path)
    for reason, words in refused.items():
        said = run("sample", *words, "-n", 1, *QUICK, "-o", "s", code=1).stderr
        assert reason in said
        assert len(said.splitlines()) <= 2
    assert files_in(tmp_path) == before
    for method, options in (("bitfit", ["--lora-rank", 2]), ("difffit", ["--gate", "none"])):
        words = ["train", *backbone, "--data", images, "--method", method, *options, "-o", "x"]
        assert f"--method {method} trains no" in run(*words, code=1).stderr
    words = ["train", *backbone, "--data", images, "--method", "difffit", "--shard-backbone", "-o", "x"]
    assert "--shard-backbone is for a frozen backbone, and --method difffit changes it" in run(*words, code=1).stderr


def test_weights_of_another_codec_are_refused(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    from dmp_cli.config import CodecRecord
    from dmp_cli.patching import create_tuned, save_tuned

    loaded = load_backbone(backbone[1], num_classes=4, num_heads=2)
    codec = CodecRecord(kind="vae", source="sd-vae", digest="0" * 64)
    about = {"codec": codec, "image_size": 64, "training": {}}
    save_tuned(tmp_path / "far.safetensors", create_tuned(loaded, "bitfit"), **about)  # type: ignore[arg-type]
    for words in (["--adapter", "far.safetensors"], ["--against", "far.safetensors"]):
        shown = run("sample", *backbone, *words, "-n", 1, *QUICK, "-o", "s", code=1).stderr
        assert "far.safetensors was trained with another codec: sd-vae, not pixel" in shown


def test_a_folder_that_is_trained_anew_keeps_nothing(run: Run, backbone: list[str], images: Path) -> None:
    tuned(run, backbone, images, "bitfit")
    run("train", *backbone, "--data", images, "--steps", 1, *HOW, "-o", "run", "--force")
    assert files_in(Path("run")) == expected_files(1, learnt={"patch.safetensors"})


def test_arms_of_an_ablation(run: Run, backbone: list[str], images: Path) -> None:
    Path("arms.toml").write_text(
        'lr = 0.05\n\n[[arm]]\nname = "b"\nmethod = "bitfit"\nema = 0.9\n\n'
        '[[arm]]\nname = "d"\nmethod = "dora"\nlora-rank = 2\n'
    )
    small = ["--steps", 2, "-n", 4, "--points", 1, "--sampling-steps", 2, "--metrics", "fid", "--features", "pixels"]
    how = [*backbone, "--data", images, *small, "--batch-size", 4, "--seeds", 1, "--device", "cpu", "-o", "out"]
    result = parse(run("ablate", "arms.toml", *how, "--json"))
    assert [arm["name"] for arm in result["arms"]] == ["base", "b", "d"]
    assert (Path("out") / "runs" / "b-seed0" / "tuned-ema.safetensors").exists()
    assert (Path("out") / "runs" / "d-seed0" / "adapter").is_dir()
    # by hand, for 3 blocks of width 16: rank 2 of qkv, proj, fc1 and fc2, and their 112 lengths
    counts = [None, 728, 3 * (2 * (64 + 32 + 48 + 48) + 112)]
    assert [arm.get("parameters") for arm in result["arms"]] == counts
    assert "| arm | learns |" in (Path("out") / "report.md").read_text()
    shutil.rmtree("out/runs/b-seed0/checkpoints")
    again = parse(run("ablate", "arms.toml", *how, "--json"))
    assert [arm.get("parameters") for arm in again["arms"]] == [None, None, counts[2]]


@pytest.mark.parametrize("method", ["dora", "difffit"])
def test_how_the_backbone_is_kept_changes_no_number(method: str, run: Run, backbone: list[str], images: Path) -> None:
    learnt = "adapter/adapter_model.safetensors" if method == "dora" else "tuned.safetensors"
    common = ["train", *backbone, "--data", images, "--method", method, "--dtype", "bf16", "--steps", 2, *HOW]
    written = {}
    for way in ("--half-frozen", "--no-half-frozen", "--gradient-checkpointing"):
        run(*common, way, "-o", way.strip("-"))
        written[way] = load_file(Path(way.strip("-")) / learnt)
    first, *others = written.values()
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
