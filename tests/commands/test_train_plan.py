"""``dmp train --dry-run``: what it says, that it writes nothing, and that it ends where the run itself would."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.backbones.flow_pipelines import write_sd3_pipeline
from tests.backbones.pipelines import write_captioned
from tests.builders import write_images

from .conftest import Run, files_in, parse


def test_a_plan_says_what_the_run_then_does(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "held", seed=5)
    how = ["train", *backbone, "--data", images, "--steps", 3, "--batch-size", 4, "--ema", 0.9, "--save-every", 1]
    how += ["--keep", 2, "--val-data", "held", "--val-draws", 20, "--sample-every", 3, "-o", "out"]
    before = files_in(tmp_path)
    plan = parse(run(*how, "--dry-run", "--json"))
    assert files_in(tmp_path) == before
    assert not Path("out").exists()
    run(*how, "-q")
    tensors = load_file("out/patch.safetensors")
    assert plan["parameters"] == sum(tensor.size for tensor in tensors.values())
    assert (plan["images"]["count"], plan["images"]["held_out"], plan["images"]["classes"]) == (8, 8, 4)
    assert plan["images"]["looks"] == "8 images 8x8 RGB; 4 classes: 0, 1, 2, 3"
    top = {
        name if (Path("out") / name).is_file() else f"{name}/" for name in (path.name for path in Path("out").iterdir())
    }
    assert {*plan["files"]} == top
    sizes = {path: path.stat().st_size for path in Path("out").rglob("*.safetensors")}
    state = sum(size for path, size in sizes.items() if path.parts[1] == "checkpoints") / 2
    assert plan["disk"]["checkpoints"] == pytest.approx(3 * state, rel=0.3)  # headers are not counted
    assert plan["disk"]["needed"] < plan["disk"]["free"]
    assert plan["memory"]["peak"] > plan["memory"]["weights"] + plan["memory"]["learnt"] > 0


def test_a_plan_is_a_few_lines(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    shown = run("train", *backbone, "--data", images, "--steps", 6, "--batch-size", 4, "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in shown] == [
        *("run", "device", "images", "learnt", "memory", "disk", "files", "time")
    ]
    assert shown[0] == "run        dmp, 6 steps of 4 images, fp32"
    assert shown[-1].endswith("--measure times five steps")
    before = files_in(tmp_path)
    timed = run("train", *backbone, "--data", images, "--steps", 6, "--batch-size", 4, "--dry-run", "--measure").stdout
    assert re.search(r"time +\d+ s, by five steps of [\d.e-]+ s", timed)
    assert files_in(tmp_path) == before


@pytest.mark.slow
def test_for_a_backbone_that_reads_text_no_encoder_is_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dmp_cli.backbones.text_pipeline import PipelineEncoders

    write_sd3_pipeline(tmp_path / "sd3")
    write_captioned(tmp_path / "photos", count=4, size=64)

    def encode(*given: Any) -> None:
        raise AssertionError("an encoder is run")

    monkeypatch.setattr(PipelineEncoders, "encode", encode)
    before = files_in(tmp_path)
    plan = parse(run("train", "--backbone", "sd3", "--data", "photos", "--steps", 2, "--dry-run", "--json"))
    assert plan["parameters"] > 0
    assert plan["memory"]["peak"] > 0
    assert files_in(tmp_path) == before


@pytest.mark.slow
def test_five_timed_steps_begin_no_store(run: Run, tmp_path: Path) -> None:
    write_sd3_pipeline(tmp_path / "sd3")
    write_captioned(tmp_path / "photos", count=4, size=64)
    before, home = files_in(tmp_path), Path(os.environ["DMP_HOME"])
    how = ["train", "--backbone", "sd3", "--data", "photos", "--batch-size", 2, "--dry-run", "--measure"]
    assert "by five steps of" in run(*how).stdout
    assert files_in(tmp_path) == before
    assert not list(home.glob("texts/*")) + list(home.glob("latents/*"))


def test_it_ends_where_the_run_would(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    train = ["train", *backbone, "--data", images, "--dry-run", "--json"]
    for options, message in (
        (["--top-k", 100, "--selection", "hard"], "--top-k 100: a block of this backbone has 16 prompts"),
        (["--image-size", 30], "--image-size 30"),
        (["--val-data", images], "are trained on too"),
        (["--method", "lora", "--lora-targets", "nothing"], "nothing"),
    ):
        refused = run(*train, *options, "-o", "out", code=1)
        assert message in refused.stderr
        assert parse(refused)["output"] == "out"  # what was understood
    assert not (tmp_path / "out").exists()
    run("train", *backbone, "--data", images, "--steps", 1, "--batch-size", 2, "-o", "out", "-q")
    assert "out exists already" in run(*train, "-o", "out", code=1).stderr
    run(*train, "-o", "out", "--force")
    run("train", "--resume", "-o", "out", "--steps", 2, "--dry-run", "-q")
