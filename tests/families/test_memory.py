"""``dmp patch --memory`` of every family: the patch's size, and memory at three numbers of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from typer.testing import CliRunner

from dmp_cli.backbones import Backbone, BlankCaptions
from dmp_cli.cli import app
from dmp_cli.commands.patch import memory
from dmp_cli.config import PatchConfig, TrainConfig, build
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.runtime.distributed import World
from dmp_cli.training import count_training, prepare, prepare_dry
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.memory import arranged
from dmp_cli.training.needs import _blank_inputs, _make_moments
from tests.builders import filled_patch
from tests.training.test_needs import measured

from .cases import Case

BATCHES = (1, 2, 4)


@pytest.mark.slow
def test_what_the_command_says(case: Case, place: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {name: how for name, how in memory._PRECISIONS.items() if name == "fp32"}
    monkeypatch.setattr(memory, "_PRECISIONS", counted)  # the others are counted alike
    size = [] if case.side is None else ["--image-size", str(case.pixels)]
    words = ["patch", "--backbone", str(place), *case.options, *size, "--memory", "--batches", "1,2,4"]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, f"{result.stdout}{result.stderr}{result.exception!r}"
    found = json.loads(result.stdout)
    patch = filled_patch(backbone)
    assert found["patch_parameters"] == sum(p.numel() for p in patch.parameters())
    assert found["per_cent"] == pytest.approx(100 * found["patch_parameters"] / backbone.num_parameters())
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        rows.setdefault(row["precision"], []).append(row)
    assert list(rows) == ["fp32"]
    for batches in rows.values():
        assert [row["images"] for row in batches] == [*BATCHES]
        for stage in ("training", "training_recomputed", "sampling"):
            needed = [row[stage] for row in batches]
            assert 0 < needed[0] < needed[1] < needed[2]


@pytest.mark.slow
def test_a_counted_step_is_a_measured_step(case: Case, place: Path) -> None:
    config = build(TrainConfig, data=Path("unused"), batch_size=4)

    def loaded() -> Backbone:
        backbone = case.load(place)
        backbone.record = None  # a patch that is only counted describes no weights
        if backbone.takes_text:
            backbone.take_captions(cast(Any, BlankCaptions(backbone)))
        return backbone

    backbone = loaded()
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3), patch_config=PatchConfig())
    inputs = _blank_inputs(backbone, config.batch_size)
    with arranged(trainee, config, World(), torch.device("cpu")):
        loop = TrainingLoop(trainee, config)
        _make_moments(loop)
        there = sum(t.numel() * t.element_size() for t in {*trainee.denoiser.parameters(), *trainee.denoiser.buffers()})
        there += sum(2 * p.numel() * 4 for p in loop.parameters)
        found = there + measured(lambda: loop.advance(inputs))
    need = count_training(prepare_dry(config, loaded(), PatchConfig()), config)
    assert need.peak == pytest.approx(found, rel=0.1)
