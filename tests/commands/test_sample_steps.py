"""How many steps are taken where none are named: of a rectified flow its pipeline's, and a folder's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmp_cli.backbones import OwnSampling
from dmp_cli.config import SampleConfig
from dmp_cli.sampling import default_steps
from tests.backbones.flow_pipelines import write_sd3_pipeline

from .conftest import Run, parse


def steps_of(folder: Path) -> int:
    return int(json.loads((folder / "samples.json").read_text())["made"]["sample"]["steps"])


def test_a_stable_diffusion_3_takes_its_pipelines_steps(run: Run, tmp_path: Path) -> None:
    write_sd3_pipeline(tmp_path / "sd3", third=False)
    draw = ("sample", "--backbone", "sd3", "--prompt", "a red fox", "-q")
    assert parse(run(*draw, "--dry-run", "--json"))["sample"]["steps"] == 28
    run(*draw, "-n", 1, "-o", "own")
    assert steps_of(tmp_path / "own") == 28
    run(*draw, "-n", 1, "--steps", 3, "--batch-size", 1, "-o", "begun")  # as one of before, with 250
    first = (tmp_path / "begun/000000.png").read_bytes()
    run(*draw, "-n", 2, "-o", "begun")
    assert steps_of(tmp_path / "begun") == 3
    assert (tmp_path / "begun/000000.png").read_bytes() == first
    run("patch", "--backbone", "sd3", "-o", "p.safetensors", "-q")
    table = parse(run("patch", "--export", "p.safetensors", "-o", "t.safetensors", "--json"))
    assert len(table["timesteps"]) == 28


@pytest.mark.parametrize("flow", [None, "sit", "repa"])
def test_the_others_keep_the_one_default(flow: str | None) -> None:
    own = OwnSampling("PNDMScheduler", None, steps=50)
    assert default_steps(SampleConfig(), own, {"made": {"sample": {"steps": 9}}}, flow=flow) == {}  # type: ignore[arg-type]


def test_steps_that_are_named_win_and_a_pipeline_of_another_class_has_the_usual_ones() -> None:
    assert default_steps(SampleConfig(steps=5), None, None, flow="rectified") == {}
    own = OwnSampling("FlowMatchEulerDiscreteScheduler", None)
    for recorded in (None, {}, {"made": {"sample": {"steps": "many"}}}):
        assert default_steps(SampleConfig(), own, recorded, flow="rectified") == {"steps": 28}
    assert default_steps(SampleConfig(), own._replace(steps=20), None, flow="rectified") == {"steps": 20}
