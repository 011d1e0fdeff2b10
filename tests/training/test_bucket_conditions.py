"""What a step of images of one bucket is made of: noise of their size, and how each image was cut, where it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import framed, load_backbone
from dmp_cli.config import PatchConfig, TrainConfig
from dmp_cli.data import Batch
from dmp_cli.latents import load_codec
from dmp_cli.runtime import randomness
from dmp_cli.training import prepare
from dmp_cli.training.loop import TrainingLoop
from tests.backbones.joined_pipelines import write_cogview4_pipeline, write_hunyuan_pipeline
from tests.backbones.pipelines import write_xl_pipeline

FRAMES = torch.tensor([[96, 64, 8, 0, 80, 48], [70, 44, 1, 3, 80, 48]])


@pytest.fixture
def loop(tmp_path: Path) -> TrainingLoop:
    write_xl_pipeline(tmp_path)
    return loop_of(tmp_path, micro_batch_size=1)


def loop_of(folder: Path, **options: Any) -> TrainingLoop:
    """What trains a new patch of the pipeline in ``folder``."""
    backbone = load_backbone(str(folder))
    config = TrainConfig(data=Path("unused"), batch_size=2, seed=3, **options)
    return TrainingLoop(
        prepare(config, backbone=backbone, codec=load_codec(None, backbone), patch_config=PatchConfig()), config
    )


def batch(values: torch.Tensor, frames: torch.Tensor | None, *, second: str = "two cats") -> Batch:
    told: dict[str, Any] = {"labels": torch.zeros(2, dtype=torch.int64), "indices": torch.arange(2), "bad": []}
    return Batch(0, values, captions=["a red fox", second], frames=frames, **told)


def given(loop: TrainingLoop, inputs: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The samples and size conditions of each forward of one step."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0], kwargs["added_cond_kwargs"]["time_ids"]))

    handle = loop.trainee.backbone.core.register_forward_pre_hook(look, with_kwargs=True)
    loop.advance(inputs)
    handle.remove()
    return seen


@pytest.mark.parametrize("stored", [True, False])
def test_the_conditions_are_each_image_s_own(loop: TrainingLoop, stored: bool) -> None:
    values = torch.rand(2, 8, 10, 6) if stored else torch.zeros(2, 3, 80, 48, dtype=torch.uint8)
    inputs = loop.prepare(batch(values, FRAMES))
    assert inputs.draws.noise.shape == (2, 4, 10, 6)
    expected = randomness.normal("noise", (4, 10, 6), seed=3, step=0, indices=[0, 1])
    assert torch.equal(inputs.draws.noise, expected)
    seen = given(loop, inputs)
    assert [x.shape for x, _ in seen] == [(1, 4, 10, 6)] * 2
    assert [ids.tolist() for _, ids in seen] == [FRAMES[:1].tolist(), FRAMES[1:].tolist()]


def test_without_buckets_an_image_counts_as_whole(loop: TrainingLoop) -> None:
    seen = given(loop, loop.prepare(batch(torch.rand(2, 8, 8, 8), None)))
    assert [ids.tolist() for _, ids in seen] == [[[64, 64, 0, 0, 64, 64]]] * 2


def test_the_conditions_change_the_prediction(loop: TrainingLoop) -> None:
    backbone = loop.trainee.backbone
    call = torch.ones(1, 4, 8, 8), torch.tensor([500]), backbone.captions.indices(["a red fox"])
    with torch.no_grad():
        whole = backbone(*call)
        with framed.given(torch.tensor([[64, 64, 0, 0, 64, 64]])):
            assert torch.equal(backbone(*call), whole)
        with framed.given(torch.tensor([[512, 64, 0, 9, 64, 64]])):
            assert not torch.equal(backbone(*call), whole)
        assert torch.equal(backbone(*call), whole)


def read_in(loop: TrainingLoop, inputs: Any, *names: str) -> list[list[float]]:
    """What the forwards of one step are given under these names, a row for each image, in order."""
    seen: list[torch.Tensor] = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(torch.cat([kwargs[name] for name in names], dim=1))

    handle = loop.trainee.backbone.core.register_forward_pre_hook(look, with_kwargs=True)
    loop.advance(inputs)
    handle.remove()
    return torch.cat(seen).tolist()


def test_hunyuan_dit_reads_them_in_an_order_of_its_own(tmp_path: Path) -> None:
    write_hunyuan_pipeline(tmp_path)
    loop, name = loop_of(tmp_path), "image_meta_size"
    # original size, target size, crop
    expected = [[96, 64, 80, 48, 8, 0], [70, 44, 80, 48, 1, 3]]
    assert read_in(loop, loop.prepare(batch(torch.rand(2, 8, 10, 6), FRAMES)), name) == expected
    loop = loop_of(tmp_path)
    assert read_in(loop, loop.prepare(batch(torch.rand(2, 8, 8, 8), None)), name) == [[1024, 1024, 64, 64, 0, 0]] * 2


@pytest.mark.parametrize("second", ["two cats", "two cats " * 20])  # of one length, and of two: two forwards
def test_cogview4_reads_them_beside_its_captions(tmp_path: Path, second: str) -> None:
    write_cogview4_pipeline(tmp_path)
    loop = loop_of(tmp_path, class_dropout=0)
    inputs = loop.prepare(batch(torch.rand(2, 32, 10, 6), FRAMES, second=second))
    found = read_in(loop, inputs, "original_size", "crop_coords", "target_size")
    assert found == FRAMES.tolist()
    assert inputs.draws.noise.shape == (2, 16, 10, 6)
