"""Backbones that predict v with zero terminal SNR, or the clean image, through whole commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image

from dmp_cli import load_patch
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import write_images

from .conftest import Run

TRAIN = ("--steps", 2, "--batch-size", 4, "--lr", 0.01, "--log-every", 1, "--sample-every", 0, "-q")


def pipeline(folder: Path, **scheduler: Any) -> Path:
    """A DDPMPipeline in pixel space, whose scheduler is a DDIM."""
    unet = tiny_plain_unet()
    diffusers.DDIMPipeline(unet=unet, scheduler=diffusers.DDIMScheduler(**scheduler)).save_pretrained(folder)
    stated = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({**stated, **scheduler}))
    return folder


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_a_pipeline_that_ends_in_noise(run: Run, tmp_path: Path, prediction: str) -> None:
    told = {"prediction_type": prediction, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    backbone = ("--backbone", pipeline(tmp_path / "pipe", **told))
    images = write_images(tmp_path / "flat", classes=0)
    # nearly all draws are the last timestep, of which a formula that divides by the signal is not finite
    levels = ("--levels", "logit-normal", "--level-mean", 12, "--loss-weight", "min-snr")
    run("train", *backbone, "--data", images, *TRAIN, *levels, "-o", "run")
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["mse"]) and line["skipped_steps"] == 0 for line in lines)
    assert all(line["loss"] < 1e-3 * line["mse"] for line in lines)  # SNR 0: it tells nothing
    patch = tmp_path / "run" / "patch.safetensors"
    found = load_patch(patch).record
    assert found is not None
    assert (found.schedule.zero_terminal_snr, found.schedule.prediction) == (True, prediction)
    assert "1000 timesteps, the last one pure noise" in run("patch", "--info", patch).stdout
    for sampler in ("pipeline", "ddpm"):
        run("sample", "--patch", patch, "-n", 2, "--steps", 3, "--sampler", sampler, "-o", sampler, "-q")
        pixels = [np.asarray(Image.open(path)) for path in sorted((tmp_path / sampler).glob("0*.png"))]
        assert len(pixels) == 2
        assert all(one.std() > 0 for one in pixels)


def test_an_option_says_that_the_image_is_predicted(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    run("train", *backbone, "--objective", "sample", "--data", images, *TRAIN, "-o", "run")
    patch = tmp_path / "run" / "patch.safetensors"
    found = load_patch(patch).record
    assert found is not None
    assert found.schedule.prediction == "sample"
    run("sample", "--patch", patch, "-n", 2, "--steps", 3, "--sampler", "ddim", "-o", "out", "-q")
    run("inspect-gates", "--patch", patch, "-o", "gates", "-q")


def test_a_prediction_of_the_noise_cannot_begin_in_noise(run: Run, tmp_path: Path) -> None:
    place = pipeline(tmp_path / "pipe", rescale_betas_zero_snr=True)
    images = write_images(tmp_path / "flat", classes=0)
    for command in (("train", "--data", images, *TRAIN), ("sample", "-n", 2, "--steps", 3)):
        said = run(*command, "--backbone", place, "-o", "out", code=1).stderr
        assert "rescale_betas_zero_snr with a prediction of epsilon" in " ".join(said.split())
        assert not (tmp_path / "out").exists()
