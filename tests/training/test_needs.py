"""dmp_cli.training.needs: the memory that is counted from shapes is the memory that is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from dmp_cli.backbones import as_backbone
from dmp_cli.backbones.base import Backbone
from dmp_cli.backbones.blank_captions import BlankCaptions
from dmp_cli.config import PatchConfig, TrainConfig, build
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.runtime.distributed import World
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.memory import arranged
from dmp_cli.training.methods import prepare
from dmp_cli.training.needs import _blank_inputs, _make_moments, count_sampling, count_training, prepare_dry
from tests.backbones.pipelines import tiny_pixart, tiny_unet
from tests.patching.counting import wide_dit

CPU = torch.device("cpu")
MODELS: dict[str, Callable[[], Backbone]] = {
    "dit": lambda: wide_dit(depth=4),
    "unet": lambda: as_backbone(tiny_unet(block_out_channels=(32, 64))),
    "pixart": lambda: as_backbone(
        tiny_pixart(sample_size=32, num_attention_heads=4, attention_head_dim=32, cross_attention_dim=128)
    ),
}
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"dtype": "bf16"},
    "recomputed": {"gradient_checkpointing": True},
}


def measured(compute: Callable[[], object]) -> int:
    """The most bytes that torch's allocator held at once above what it held before, by its own record."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        compute()
    events = recorded.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


def config_of(**options: Any) -> TrainConfig:
    return build(TrainConfig, data=Path("unused"), **{"batch_size": 4, **options})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_a_counted_step_is_a_measured_step(name: str, way: str) -> None:
    config, backbone = config_of(**WAYS[way]), MODELS[name]()
    if backbone.takes_text:
        backbone.take_captions(cast(Any, BlankCaptions(backbone)))
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3), patch_config=PatchConfig())
    inputs = _blank_inputs(backbone, config.batch_size)
    with arranged(trainee, config, World(), CPU):
        loop = TrainingLoop(trainee, config)
        _make_moments(loop)
        there = sum(t.numel() * t.element_size() for t in (*trainee.denoiser.parameters(), *loop.ema.values()))
        there += sum(2 * p.numel() * 4 for p in loop.parameters)
        found = there + measured(lambda: loop.advance(inputs))
    need = count_training(prepare_dry(config, MODELS[name](), PatchConfig()), config)
    assert need.peak == pytest.approx(found, rel=0.1)
    assert way == "recomputed" or need.activations > 0.2 * need.peak  # which the shapes of weights do not tell
    assert need.learnt == 4 * 4 * sum(p.numel() for p in loop.parameters)
    assert bool(need.aside) == (config.dtype == "bf16")


@pytest.mark.parametrize("name", MODELS)
def test_a_counted_prediction_is_a_measured_one(name: str) -> None:
    config, backbone = config_of(), MODELS[name]()
    if backbone.takes_text:
        backbone.take_captions(cast(Any, BlankCaptions(backbone)))
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3), patch_config=PatchConfig())
    inputs = _blank_inputs(backbone, 16 if backbone.has_null else 8)
    condition = inputs.batch.labels if backbone.takes_text or backbone.num_classes else None
    there = sum(t.numel() * t.element_size() for t in trainee.denoiser.parameters())
    with torch.no_grad():
        found = there + measured(lambda: trainee.denoiser(inputs.batch.values, inputs.draws.timesteps, condition))
    need = count_sampling(prepare_dry(config, MODELS[name](), PatchConfig()), config, images=8)
    assert need.peak == pytest.approx(found, rel=0.1)


def test_recomputing_and_fewer_bits_take_less() -> None:
    trainee = prepare_dry(config_of(), MODELS["dit"](), PatchConfig())
    whole, recomputed, half = (
        count_training(trainee, config_of(**WAYS[way])) for way in ("fp32", "recomputed", "bf16")
    )
    assert recomputed.activations < 0.5 * whole.activations
    assert half.weights < 0.7 * whole.weights
    averaged = count_training(trainee, config_of(ema=0.9))
    assert 0 < averaged.peak - whole.peak <= averaged.learnt - whole.learnt == whole.learnt // 4
    assert count_training(trainee, config_of()) == whole  # counting leaves nothing behind
    assert count_training(trainee, config_of(batch_size=8)).activations > 1.5 * whole.activations
