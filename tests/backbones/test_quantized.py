"""dmp_cli.backbones.quantized: frozen weights in few bits give nearly the same numbers, and come back as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli.backbones import as_backbone, quantized as module
from dmp_cli.backbones.base import Backbone
from dmp_cli.backbones.packed import Packed
from dmp_cli.backbones.quantized import check_quantize, quantizable, quantized
from dmp_cli.config import PatchConfig, TrainConfig, build
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.identity import backbone_digest
from dmp_cli.runtime.devices import autocast
from dmp_cli.runtime.distributed import World
from dmp_cli.training.memory import arranged, recomputed
from dmp_cli.training.methods import prepare
from dmp_cli.training.needs import count_training, prepare_dry
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import call_of, filled_patch, tiny_dit
from tests.patching.counting import kept_for_backward, wide_dit

CPU = torch.device("cpu")
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "dit": lambda: wide_dit(depth=2),
    "unet": lambda: as_backbone(tiny_plain_unet()),
}


def by_rows(weight: Tensor) -> Packed:
    """Eight bits and a scale for each row: what torchao does, in three lines."""
    scales = weight.abs().amax(dim=1, keepdim=True) / 127
    codes = (weight / scales).round().to(torch.int8)
    return module._of_rows(codes, scales)


@pytest.fixture(params=["torchao", "rows"])
def packer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library itself where it is installed, and the same rounding everywhere."""
    if request.param == "torchao":
        pytest.importorskip("torchao")
    else:
        monkeypatch.setitem(module._PACK, "int8", by_rows)


def results_of(patched: Any, call: Any, dtype: Any = "fp32") -> tuple[Tensor, Tensor]:
    """The output, and the gradients of all prompts and the gate in one vector."""
    with autocast(CPU, dtype):
        output = patched(*call)
    output.float().square().mean().backward()
    gradients = [p.grad.flatten() for p in patched.patch.parameters() if p.grad is not None]
    patched.zero_grad(set_to_none=True)
    return output.detach().float(), torch.cat(gradients)


@contextlib.contextmanager
def rounded(backbone: Backbone) -> Iterator[None]:
    """Context in which the weights that are quantized are floats, rounded to the same values."""
    before = [(layer.weight, layer.weight.data) for layer in quantizable(backbone)]
    for weight, data in before:
        packed = module._PACK["int8"](data)
        weight.data = packed.unpack(packed.codes, torch.float32)
    yield
    for weight, data in before:
        weight.data = data


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("family", BACKBONES)
def test_eight_bits_are_nearly_the_same_network(family: str, dtype: str, packer: None) -> None:
    backbone = BACKBONES[family]()
    patched, digest, names = (
        attach(backbone, filled_patch(backbone)),
        backbone_digest(backbone),
        list(backbone.state_dict()),
    )
    call, before = call_of(backbone), backbone.stamp()
    output, gradient = results_of(patched, call)
    with quantized(backbone, "int8", device=CPU):
        layers = quantizable(backbone)
        assert len(layers) > 3
        assert {layer.weight.dtype for layer in layers} == {torch.int8}
        assert list(backbone.state_dict()) == names
        vector = backbone.gate_vector(call[1])
        found, slope = results_of(patched, call, dtype)
    assert 0 < (found - output).norm() / output.norm() < 0.1
    assert slope.isfinite().all()
    assert torch.cosine_similarity(slope, gradient, dim=0) > 0.95
    with rounded(backbone):  # a float network of the same rounded weights is the same network
        expected = results_of(patched, call, dtype)[0]
    assert (found - expected).norm() / expected.norm() < (1e-5 if dtype == "fp32" else 0.05)
    assert torch.equal(vector, backbone.gate_vector(call[1]))  # the gate reads what it reads of float weights
    assert (backbone_digest(backbone), backbone.stamp()) == (digest, before)
    assert torch.equal(results_of(patched, call)[0], output)


def test_autograd_keeps_no_float_weight(packer: None) -> None:
    backbone = wide_dit(depth=4)
    patched, call = attach(backbone, filled_patch(backbone)), call_of(backbone, count=1)
    weights = [*backbone.parameters(), *patched.patch.parameters()]
    before = kept_for_backward(lambda: patched(*call), weights=weights)
    with quantized(backbone, "int8", device=CPU):
        kept = kept_for_backward(lambda: patched(*call), weights=[*weights, *backbone.parameters()])
        with recomputed(backbone):
            assert results_of(patched, call)[1].isfinite().all()
    assert kept <= 1.01 * before


def test_the_library_rounds_as_the_record_says() -> None:
    pytest.importorskip("torchao")
    weight = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    packed = module._int8(weight)
    assert packed.codes.dtype == torch.int8
    steps = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((packed.unpack(packed.codes, torch.float32) - weight).abs() <= 0.51 * steps).all()


def test_what_is_counted_is_what_is_kept(packer: None) -> None:
    config = build(TrainConfig, data=Path("unused"), batch_size=2, quantize="int8")
    trainee = prepare(config, backbone=wide_dit(), codec=PixelCodec(3), patch_config=PatchConfig())
    with arranged(trainee, config, World(), CPU):
        kept = sum(p.numel() * p.element_size() for p in trainee.backbone.parameters())
        scales = 4 * sum(layer.out_features for layer in quantizable(trainee.backbone))
    assert not list(trainee.backbone.buffers())
    whole = sum(p.numel() * p.element_size() for p in trainee.backbone.parameters())
    eight, four = (
        count_training(prepare_dry(config, wide_dit(), PatchConfig()), config.model_copy(update={"quantize": kind}))
        for kind in ("int8", "nf4")
    )
    assert eight.weights == kept + scales < 0.4 * whole
    assert four.weights < 0.7 * eight.weights
    assert four.peak < eight.peak


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nf4 needs a CUDA device, and this run computes on cpu"):
        check_quantize("nf4", CPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="int8 needs torchao, which is not installed"):
        check_quantize("int8", CPU)
    for method in ("full", "scratch", "bitfit", "difffit"):
        with pytest.raises(ConfigError, match=f"is for frozen weights, and --method {method} learns them"):
            build(TrainConfig, data=Path("unused"), quantize="int8", method=method)
    with pytest.raises(ConfigError, match="--quantize and --compile do not go together"):
        build(TrainConfig, data=Path("unused"), quantize="int8", compile=True)


def test_an_adapter_learns_on_eight_bits(packer: None) -> None:
    config = build(TrainConfig, data=Path("unused"), quantize="int8", method="lora", lora_rank=2)
    backbone = tiny_dit()
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3))
    with arranged(trainee, config, World(), CPU):
        trainee.denoiser(*call_of(backbone)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainee.learnt.values())
