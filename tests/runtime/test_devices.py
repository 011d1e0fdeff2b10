"""Devices: which one is picked, and what must hold on a GPU. The latter are skipped without one."""

import pytest
import torch

from dmp_cli.backbones.dit import DiT, DiTConfig, positions
from dmp_cli.config import BackboneRecord, SampleConfig, TrainConfig
from dmp_cli.data.batches import Batch
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.identity import backbone_digest
from dmp_cli.runtime.devices import autocast, pick_device
from dmp_cli.sampling.sampler import resolve, sample
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import prepare
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch

DEVICE = "cuda"
DTYPES = ["fp32", "bf16", "fp16"]


def without_accelerators(monkeypatch, *, cuda=0, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(0, False, "cpu"), (0, True, "mps"), (2, True, "cuda")])
def test_auto_is_the_best_there_is(monkeypatch, cuda, mps, expected):
    without_accelerators(monkeypatch, cuda=cuda, mps=mps)
    assert pick_device() == pick_device("auto") == torch.device(expected)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cuda:2", "has 2 cuda devices"),
        ("mps", "has 0 mps devices"),
        ("cpu:1", "has 1 cpu devices"),
        ("meta", "has 0 meta devices"),
        ("gpu", "no such kind of device"),
        ("cuda:x", "no such kind of device"),
        ("", "no such kind of device"),
    ],
)
def test_devices_that_are_not_there(monkeypatch, name, reason):
    without_accelerators(monkeypatch, cuda=2)
    with pytest.raises(ConfigError, match=reason):
        pick_device(name)
    assert pick_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(("dtype", "expected"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_autocast_on_the_cpu(dtype, expected):
    with autocast(torch.device("cpu"), dtype):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == getattr(torch, expected)


# --- on a GPU --------------------------------------------------------------------------------------------------------

on_cuda = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def cuda(test):
    for mark in on_cuda:
        test = mark(test)
    return test


def on_device(backbone):
    """The backbone and a call of it, there."""
    call = [None if value is None else value.to(DEVICE) for value in call_of(backbone)]
    return backbone.to(DEVICE), call


def there(tensor):
    return tensor.device.type == torch.device(DEVICE).type


@cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_attaching_changes_no_bit(dtype):
    backbone, call = on_device(tiny_dit())
    patch = zero_patch(backbone)
    with torch.no_grad(), autocast(backbone.device, dtype):
        bare = backbone(*call)
        patched = attach(backbone, patch)
        assert all(there(tensor) for tensor in [*patch.parameters(), *patch.buffers()])
        assert torch.equal(patched(*call), bare)
        for parameter in patch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        assert not torch.equal(patched(*call), bare)
        with patched.disabled():
            assert torch.equal(patched(*call), bare)
        assert torch.equal(patched.detach()(*call), bare)


@cuda
def test_same_answer_as_on_the_cpu():
    backbone = tiny_dit()
    patch, call = filled_patch(backbone), call_of(backbone)
    with torch.no_grad():
        expected = attach(backbone, patch)(*call)
        other, call = on_device(tiny_dit())
        result = attach(other, filled_patch(other))(*call)
    assert there(result)
    torch.testing.assert_close(result.cpu(), expected, rtol=1e-2, atol=1e-2)  # convolutions may run in TF32


@cuda
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_hidden_state_and_gate_stay_float32_under_autocast(dtype):
    backbone, call = on_device(tiny_dit())
    patched = attach(backbone, filled_patch(backbone))
    seen = []
    for block in [*backbone.blocks, backbone.final_layer]:
        block.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    with autocast(backbone.device, dtype):
        output = patched(*call)
        gating = patched.gating(call[1])
    assert seen == [torch.float32] * 4
    assert output.dtype != torch.float32  # the matrix products are not
    assert gating.weights.dtype == torch.float32
    assert torch.equal(gating.weights, patched.gating(call[1]).weights)


@cuda
@pytest.mark.parametrize("method", ["dmp", "full"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_training_steps(method, dtype, tmp_path):
    backbone = tiny_dit().to(DEVICE)
    digest = backbone_digest(backbone)
    backbone.record = BackboneRecord(family="dit", sizes=backbone.sizes, source="here.pt", digest=digest)
    config = TrainConfig(method=method, data=tmp_path, batch_size=4, micro_batch_size=2, dtype=dtype, lr=1e-3, ema=0.9)
    loop = TrainingLoop(prepare(config, backbone=backbone, codec=PixelCodec(3)), config)
    before = {name: parameter.detach().clone() for name, parameter in loop.trainee.learnt.items()}
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for step in range(6):
        batch = Batch(step=step, values=images, labels=torch.arange(4), indices=torch.arange(4), bad=[])
        terms = loop.advance(loop.prepare(batch))
        assert all(there(value) and value.isfinite() for value in terms.values())
    assert all(parameter.isfinite().all() for parameter in loop.trainee.learnt.values())
    assert any(not torch.equal(parameter, before[name]) for name, parameter in loop.trainee.learnt.items())
    assert (backbone_digest(backbone) == digest) == (method == "dmp")


@cuda
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_sampling(sampler):
    backbone = tiny_dit().to(DEVICE)
    config = SampleConfig(num_images=3, steps=4, sampler=sampler, guidance=1.5, batch_size=2, dtype="bf16")
    config = resolve(config, backbone)
    patched = attach(backbone, filled_patch(backbone))

    def draw():
        chunks = sample(patched, backbone=backbone, codec=PixelCodec(3), config=config)
        return [image.pixels for chunk in chunks for image in chunk]

    images = draw()
    assert [image.shape for image in images] == [(8, 8, 3)] * 3
    assert all((one == other).all() for one, other in zip(images, draw(), strict=True))
    with patched.disabled():
        assert not all((one == other).all() for one, other in zip(images, draw(), strict=True))


@cuda
def test_a_backbone_is_built_there():
    with torch.device(DEVICE):
        backbone = DiT(DiTConfig(**tiny_dit().sizes))
    assert all(there(parameter) for parameter in backbone.parameters())
    assert torch.equal(backbone.pos_embed[0].cpu(), positions(backbone.config))
    assert backbone.derived_tensors() == {"pos_embed"}
    backbone.initialise(seed=0)
    same = tiny_dit()
    same.initialise(seed=0)
    assert backbone_digest(backbone) == backbone_digest(same)


@cuda
def test_compiled_training_step():
    backbone, call = on_device(tiny_dit(depth=2))
    patched = attach(backbone, filled_patch(backbone))
    compiled = torch.compile(patched, backend="aot_eager", fullgraph=True)
    compiled(*call).square().mean().backward()
    gradient = patched.patch.prompts[0].grad.clone()
    patched.patch.zero_grad()
    patched(*call).square().mean().backward()
    torch.testing.assert_close(gradient, patched.patch.prompts[0].grad, rtol=1e-3, atol=1e-5)
