"""``dmp train`` with other levels and loss weights: what changes, what is kept, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dmp_cli import load_patch
from dmp_cli.backbones.dit import DiT
from dmp_cli.config import LevelRule, ScheduleConfig
from dmp_cli.diffusion import make_process, make_weigh
from dmp_cli.runtime.randomness import uniform
from tests.backbones.flow_pipelines import write_sd3_pipeline
from tests.builders import write_images

from .conftest import Run

TRAIN = ("--steps", 2, "--batch-size", 4, "--lr", 0.01, "--log-every", 1, "--sample-every", 0, "-q")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def training_of(folder: Path) -> dict[str, Any]:
    found = load_patch(folder / "patch.safetensors").record
    assert found is not None
    return dict(found.training or {})


def test_levels_and_weights_of_a_run(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    train = ("train", *backbone, "--data", images, *TRAIN)
    run(*train, "-o", "plain")
    run(*train, "--levels", "uniform", "--loss-weight", "none", "-o", "told")
    plain, told = (lines(tmp_path / name) for name in ("plain", "told"))
    assert [line["loss"] for line in plain] == [line["loss"] for line in told]
    assert (
        not {"levels", "level_mean", "loss_weight", "snr_gamma", "drawn_levels"}
        & training_of(tmp_path / "plain").keys()
    )

    # Two steps at once, or one and one after a break, are the same run.
    levels = ("--levels", "logit-normal", "--level-mean", -3, "--level-shift", 2, "--loss-weight", "min-snr")
    run(*train, *levels, "-o", "whole")
    run(*train, *levels, "--steps", 1, "-o", "parts")
    run("train", "--resume", "--steps", 2, "-o", "parts", "-q")
    assert (tmp_path / "whole/patch.safetensors").read_bytes() == (tmp_path / "parts/patch.safetensors").read_bytes()
    noisy = lines(tmp_path / "whole")
    assert noisy[0]["mse"] != plain[0]["mse"]
    assert all(line["bound"] < line["loss"] < 0.9 * (line["mse"] + line["bound"]) for line in noisy)
    kept = training_of(tmp_path / "whole")
    assert (kept["levels"], kept["level_mean"], kept["loss_weight"]) == ("logit-normal", -3, "min-snr")
    assert "mode_scale" not in kept
    assert kept["drawn_levels"] == LevelRule(kind="logit-normal", mean=-3, shift=2).model_dump()
    told = " ".join(run("patch", "--info", "whole/patch.safetensors").stdout.split())
    assert "levels logit-normal (shift 2.0), loss weight min-snr" in told

    said = run("train", "--resume", "--level-mean", 0, "-o", "whole", code=1).stderr
    assert "level-mean -3.0, now 0.0" in said
    assert (
        "loss-weight none, now min-snr"
        in run(*train, "--loss-weight", "min-snr", "--resume", "-o", "plain", code=1).stderr
    )


def test_the_weight_is_on_the_mean_squared_error_alone(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    one = ("--steps", 1, "--batch-size", 1, "--log-every", 1, "--sample-every", 0, "--seed", 9, "-q")
    rule, weigh = LevelRule(kind="mode", shift=0.2), make_weigh("min-snr", ScheduleConfig(), gamma=2.5)
    run("train", *backbone, "--data", images, *one, "--levels", "mode", "--level-shift", 0.2,
        "--loss-weight", "min-snr", "--snr-gamma", 2.5, "-o", "one")  # fmt: skip
    (line,) = lines(tmp_path / "one")
    drawn = make_process(ScheduleConfig()).training_levels(uniform("timestep", seed=9, step=0, indices=[0]), rule)
    assert weigh is not None
    weight = float(weigh(drawn))
    assert 0 < weight < 0.9
    assert line["bound"] > 0
    assert line["loss"] == pytest.approx(weight * line["mse"] + line["bound"], rel=1e-5)


def test_a_family_s_own_levels_hold_unless_an_option_says_otherwise(
    run: Run, backbone: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", *backbone, "--data", images, *TRAIN)
    run(*train, "--levels", "logit-normal", "--level-shift", 3, "-o", "told")
    run(*train, "-o", "plain")
    with monkeypatch.context() as family:
        family.setattr(DiT, "level_rule", LevelRule(kind="logit-normal", shift=3.0))
        run(*train, "-o", "own")
        run(*train, "--levels", "uniform", "--level-shift", 1, "-o", "other")
    losses = {name: [line["loss"] for line in lines(tmp_path / name)] for name in ("told", "plain", "own", "other")}
    assert losses["own"] == losses["told"] != losses["plain"] == losses["other"]
    # The rule of its family is part of what a run was begun with.
    assert "drawn-levels" in run("train", "--resume", "--steps", 3, "-o", "own", code=1).stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--levels", "mode", "--level-mean", 1),
            "--level-mean is for --levels logit-normal, and levels are mode here",
        ),
        (("--mode-scale", 1), "--mode-scale is for --levels mode, and levels are uniform here"),
        (("--snr-gamma", 1), "--snr-gamma is for --loss-weight min-snr"),
        (("--loss-weight", "cosmap"), "is for the velocity of a linear flow, and this backbone predicts epsilon"),
        (("--loss-weight", "min-snr", "--objective", "sit"), "is for a DDPM, and --objective says sit"),
        (("--levels", "mode", "--mode-scale", 2), "--mode-scale"),
    ],
)
def test_what_does_not_fit_is_refused(
    run: Run, backbone: list[str], images: Path, tmp_path: Path, options: tuple[Any, ...], words: str
) -> None:
    assert words in " ".join(
        run("train", *backbone, "--data", images, *TRAIN, *options, "-o", "x", code=1).stderr.split()
    )
    assert not (tmp_path / "x").exists()


def test_stable_diffusion_3_learns_at_the_levels_of_its_own_training(run: Run, tmp_path: Path) -> None:
    write_sd3_pipeline(tmp_path / "sd3", third=False)
    images = write_images(tmp_path / "flat", classes=0, count=2, size=64)
    for image in images.glob("*.png"):
        image.with_suffix(".txt").write_text("a red fox")
    train = ("train", "--backbone", "sd3", "--data", images, *TRAIN, "--batch-size", 2)
    run(*train, "--loss-weight", "cosmap", "-o", "run")
    told = training_of(tmp_path / "run")
    assert told["drawn_levels"] == LevelRule(kind="logit-normal", shift=3).model_dump()
    assert told["loss_weight"] == "cosmap"
    first = lines(tmp_path / "run")[0]
    assert 2 / math.pi < first["loss"] / first["mse"] < 4 / math.pi  # the least and the largest weight
    said = run(*train, "--loss-weight", "min-snr", "-o", "other", code=1).stderr
    assert "--loss-weight min-snr is for a DDPM" in said
