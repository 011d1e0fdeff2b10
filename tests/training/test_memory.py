"""dmp_cli.training.memory: half weights change no number, recomputed blocks change no gradient, both are undone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import as_backbone
from dmp_cli.backbones.base import Backbone
from dmp_cli.backbones.keeping import half_weights
from dmp_cli.config import PatchConfig, TrainConfig, build
from dmp_cli.data.batches import Batch
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.identity import backbone_digest
from dmp_cli.runtime.devices import autocast
from dmp_cli.runtime.distributed import World
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.memory import arranged, channels_last, recomputed
from dmp_cli.training.methods import prepare
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch
from tests.patching.counting import Graphs, kept_for_backward, wide_dit

CPU = torch.device("cpu")
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "dit": tiny_dit,
    "unet": lambda: as_backbone(tiny_plain_unet()),
}


def gradients_of(patched: Any, call: Any, *, dtype: Any = "fp32") -> list[torch.Tensor]:
    with autocast(CPU, dtype):
        output = patched(*call)
    output.float().square().mean().backward()
    found = [parameter.grad for parameter in patched.patch.parameters()]
    patched.zero_grad(set_to_none=True)
    return [output.detach(), *(g for g in found if g is not None)]


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_weights_give_the_same_numbers(family: str, dtype: str) -> None:
    backbone = BACKBONES[family]()
    patched, digest = attach(backbone, filled_patch(backbone)), backbone_digest(backbone)
    call = call_of(backbone)
    expected = gradients_of(patched, call, dtype=dtype)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    with half_weights(backbone, half):
        assert {p.dtype for p in patched.patch.parameters()} == {torch.float32}
        kept = sum(p.numel() for p in backbone.parameters() if p.dtype == half)
        assert kept > 0.5 * backbone.num_parameters()
        found = gradients_of(patched, call, dtype=dtype)
    assert len(found) > 2
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert backbone_digest(backbone) == digest
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def test_trainable_weights_stay_in_float32() -> None:
    backbone = tiny_dit()
    backbone.requires_grad_(True)
    with half_weights(backbone, torch.bfloat16):
        assert {p.dtype for p in backbone.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("variant", [{}, {"depth": 1}])
def test_recomputed_blocks_give_the_same_gradients(family: str, variant: dict[str, Any]) -> None:
    backbone = BACKBONES[family]()
    patched, names = attach(backbone, filled_patch(backbone, **variant)), list(backbone.state_dict())
    call = call_of(backbone)
    expected = gradients_of(patched, call)
    with recomputed(backbone):
        assert list(backbone.state_dict()) == names
        found = gradients_of(patched, call)
        with torch.no_grad():
            assert torch.equal(patched(*call), expected[0])
    assert len(found) == len(expected) > 2
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not any("forward" in vars(block.module) for block in backbone.list_blocks())


def test_bytes_kept_with_recomputed_blocks() -> None:
    backbone = wide_dit(depth=12)
    backbone.requires_grad_(True)
    call, weights = call_of(backbone, count=4), list(backbone.parameters())
    full = kept_for_backward(lambda: backbone(*call), weights=weights)
    patched = attach(backbone, zero_patch(backbone))
    with recomputed(backbone):
        kept = kept_for_backward(lambda: patched(*call), weights=[*weights, *patched.patch.parameters()])
    assert kept / full <= 0.06


@pytest.mark.parametrize("extra", [{}, {"gradient_checkpointing": True}, {"gate_noise": True}])
def test_a_compiled_step_is_one_graph(extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, compile = Graphs(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **how: compile(module, backend=graphs, fullgraph=True, **how))
    results = []
    for compiled in (True, False):
        options = {"compile": compiled, "batch_size": 4, "lr": 0.01, **extra}
        config = build(TrainConfig, data=Path("unused"), **options)
        trainee = prepare(config, backbone=tiny_dit(depth=2), codec=PixelCodec(3), patch_config=PatchConfig())
        with arranged(trainee, config, World(), CPU):
            loop = TrainingLoop(trainee, config)
            for step in range(5):
                images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(step)) * 2 - 1
                batch = Batch(step=step, values=images, labels=torch.arange(4), indices=torch.arange(4), bad=[])
                loop.advance(loop.prepare(batch))
        results.append({name: value.detach().clone() for name, value in trainee.learnt.items()})
    assert graphs.count == 1  # one for all steps: no recompilation
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_channels_last_changes_nothing_but_the_layout() -> None:
    backbone = BACKBONES["unet"]()
    patched, digest = attach(backbone, filled_patch(backbone)), backbone_digest(backbone)
    call = call_of(backbone)
    expected, strides = gradients_of(patched, call), [p.stride() for p in backbone.parameters()]
    assert backbone.channels_last
    with channels_last(backbone):
        assert [p.stride() for p in backbone.parameters()] != strides
        found = gradients_of(patched, call)
        assert backbone_digest(backbone) == digest
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert [p.stride() for p in backbone.parameters()] == strides


def test_the_contexts_are_undone_after_an_error() -> None:
    backbone = tiny_dit()
    digest = backbone_digest(backbone)
    attach(backbone, zero_patch(backbone))
    with contextlib.suppress(KeyError), half_weights(backbone, torch.bfloat16), recomputed(backbone):
        raise KeyError
    assert backbone_digest(backbone) == digest
    assert not any("forward" in vars(block.module) for block in backbone.list_blocks())


def test_one_process_cannot_spread_weights() -> None:
    config = TrainConfig(data=Path("unused"), shard_backbone=True)
    trainee = prepare(config, backbone=tiny_dit(), codec=PixelCodec(3))
    with pytest.raises(ConfigError, match="needs several processes"), arranged(trainee, config, World(), CPU):
        pass
    with pytest.raises(ConfigError, match="--method full changes it"):
        build(TrainConfig, data=Path("unused"), shard_backbone=True, method="full")
