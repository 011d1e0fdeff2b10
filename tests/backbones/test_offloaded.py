"""dmp_cli.backbones.offloaded: weights in main memory give the same numbers, and are moved where they work."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli.backbones import as_backbone, packed
from dmp_cli.backbones.base import Backbone
from dmp_cli.backbones.keeping import Keeping, kept
from dmp_cli.backbones.offloaded import offloaded
from dmp_cli.config import PatchConfig, TrainConfig, build
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.identity import backbone_digest
from dmp_cli.runtime.devices import autocast
from dmp_cli.runtime.distributed import World
from dmp_cli.training.memory import arranged, recomputed
from dmp_cli.training.methods import prepare
from dmp_cli.training.needs import count_sampling, count_training, prepare_dry
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import call_of, filled_patch, tiny_dit
from tests.patching.counting import kept_for_backward, wide_dit

CPU, META = torch.device("cpu"), torch.device("meta")
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "dit": lambda: wide_dit(depth=2),
    "unet": lambda: as_backbone(tiny_plain_unet()),
}


def results_of(patched: Any, call: Any, dtype: Any) -> list[Tensor]:
    """The output, and the gradients of the patch."""
    with autocast(CPU, dtype):
        output = patched(*call)
    output.float().square().mean().backward()
    found = [output.detach(), *(p.grad.clone() for p in patched.patch.parameters() if p.grad is not None)]
    patched.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("family", BACKBONES)
def test_the_same_numbers_and_gradients(family: str, dtype: Any) -> None:
    backbone = BACKBONES[family]()
    patched, call = attach(backbone, filled_patch(backbone)), call_of(backbone)
    digest, names, before = backbone_digest(backbone), list(backbone.state_dict()), backbone.stamp()
    expected = results_of(patched, call, dtype)
    with kept(backbone, Keeping(half=dtype, offload_blocks=True), device=CPU, move=patched.to):
        found = results_of(patched, call, dtype)
        with recomputed(backbone):
            again = results_of(patched, call, dtype)
        assert list(backbone.state_dict()) == names
    assert torch.equal(found[0], expected[0])
    for one, two, three in zip(found, again, expected, strict=True):
        assert torch.equal(one, two)
        # sums of a convolution's gradient go another way
        assert (one - three).norm() <= (1e-6 if dtype == "fp32" else 1e-2) * three.norm()
    assert (backbone_digest(backbone), backbone.stamp()) == (digest, before)


def test_each_weight_is_moved_for_its_product_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without values stands for the GPU: it computes nothing with a tensor that is elsewhere."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it knows no such device
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    moves: Counter[int] = Counter()
    unpacked = packed._unpacked

    def counted(codes: Tensor, *rest: Any) -> Tensor:
        moves[id(codes)] += 1
        assert codes.device == CPU
        return unpacked(codes, *rest)

    monkeypatch.setattr(packed, "_unpacked", counted)
    backbone = BACKBONES["unet"]()
    patched = attach(backbone, filled_patch(backbone))
    call = [value.to(META) if isinstance(value, Tensor) else value for value in call_of(backbone, count=1)]
    originals = [parameter.detach().clone() for parameter in backbone.parameters()]
    with offloaded(backbone, device=META):
        patched.to(META)
        assert {p.device for p in patched.parameters()} == {META}
        stored = sum(p.untyped_storage().nbytes() for p in backbone.parameters())
        assert stored < 0.5 * sum(p.numel() * p.element_size() for p in backbone.parameters())
        output = patched(*call)
        forward = len(moves)
        assert forward > 10
        assert set(moves.values()) == {1}
        output.square().mean().backward()
        assert {p.grad.device for p in patched.patch.parameters() if p.grad is not None} == {META}
        assert len(moves) == forward
        assert Counter(moves.values()).most_common(1)[0][0] == 2  # once more for the backward pass
    layers = [p for p in backbone.parameters() if p.device == CPU]
    assert len(layers) == forward  # their weights are back
    assert all(any(torch.equal(p, original) for original in originals) for p in layers)


def test_autograd_keeps_no_weight() -> None:
    backbone = wide_dit(depth=4)
    patched, call = attach(backbone, filled_patch(backbone)), call_of(backbone, count=1)
    weights = [*backbone.parameters(), *patched.patch.parameters()]
    before = kept_for_backward(lambda: patched(*call), weights=weights)
    with offloaded(backbone, device=CPU):
        kept_now = kept_for_backward(lambda: patched(*call), weights=[*weights, *backbone.parameters()])
    assert kept_now <= 1.01 * before


def test_what_it_saves_is_counted() -> None:
    def config(**options: Any) -> TrainConfig:
        return build(TrainConfig, data=Path("unused"), batch_size=1, **options)

    trainee = prepare_dry(config(), wide_dit(depth=4), PatchConfig())
    whole, away = (count_training(trainee, config(offload_blocks=on)) for on in (False, True))
    assert away.weights < 0.2 * whole.weights
    assert away.aside == whole.weights - away.weights
    assert away.peak < whole.peak - 0.7 * away.aside  # a layer's weight is there while it works
    drawn = count_sampling(trainee, config(offload_blocks=True), images=1)
    assert drawn.peak < count_sampling(trainee, config(), images=1).peak - 0.7 * away.aside


def test_an_adapter_learns_on_offloaded_blocks() -> None:
    config = build(TrainConfig, data=Path("unused"), offload_blocks=True, method="lora", lora_rank=2)
    backbone = tiny_dit()
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3))
    with arranged(trainee, config, World(), CPU):
        trainee.denoiser(*call_of(backbone)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainee.learnt.values())


def test_what_cannot_be_offloaded_is_said() -> None:
    with pytest.raises(ConfigError, match="--offload-blocks needs a GPU with memory of its own"):
        Keeping(offload_blocks=True).check(CPU)
    for method in ("full", "scratch", "bitfit", "difffit"):
        with pytest.raises(ConfigError, match=f"--method {method} learns them"):
            build(TrainConfig, data=Path("unused"), offload_blocks=True, method=method)
    for option in ("compile", "shard_backbone"):
        with pytest.raises(ConfigError, match=f"--offload-blocks and --{option.replace('_', '-')} do not go together"):
            build(TrainConfig, data=Path("unused"), offload_blocks=True, **{option: True})
