"""``attach(pipe.transformer, patch)`` in the stock pipeline of every family that has one, as people use it.

A class-conditional DiT, SiT or REPA has no pipeline that reads it: there the backbone itself is used so.
"""

from __future__ import annotations

import copy
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli import attach, load_patch, save_patch
from dmp_cli.backbones import Backbone
from tests.builders import filled_patch

from .cases import Case
from .shown import shows
from .test_attached import draws
from .test_sampled import stock

Call = Callable[[], Tensor]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*half precision.*")
        yield


class Used:
    """One network as people hold it: the module to attach to, and how it is called."""

    def __init__(self, case: Case, place: Path, backbone: Backbone, patch_file: Path) -> None:
        self.case, self.patch = case, load_patch(patch_file)
        x, levels, condition = draws(case, backbone)
        if case.core is None:
            self.network: Any = backbone
            self.call: Call = lambda: backbone(x.to(self.dtype), levels, condition)
            self.backbone, self.text = backbone, None
            return
        pipe = case.pipeline(place)
        self.network = getattr(pipe, case.core)
        self.backbone = backbone
        text = {name: value.clone() for name, value in backbone.captions.look_up(condition).items()}
        lengths = backbone.captions.lengths(condition)
        kind = copy.copy(backbone)  # calls the pipeline's own network as the family's pipeline does
        kind._modules = {**backbone._modules, "model": self.network}
        kind._captions = self.text = _Fixed(text, lengths)  # type: ignore[assignment]
        self.call = lambda: kind(x.to(self.dtype), levels, condition)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def to(self, dtype: torch.dtype) -> None:
        """Compute in another precision, with captions in it."""
        self.network.to(dtype)
        if self.text is not None:
            told = self.text.text
            self.text.text = {k: v.to(dtype) if v.is_floating_point() else v for k, v in told.items()}

    def attach(self, patch: Any = None, **options: Any) -> Any:
        return attach(self.network, patch or self.patch, force=True, **options)


class _Fixed:
    """Captions that are encoded already, in the network's precision."""

    def __init__(self, text: dict[str, Tensor], lengths: list[int]) -> None:
        self.text, self._lengths = text, lengths

    def look_up(self, condition: Tensor) -> dict[str, Tensor]:
        return self.text

    def lengths(self, condition: Tensor) -> list[int]:
        return self._lengths


@pytest.fixture
def used(case: Case, place: Path, backbone: Backbone, tmp_path: Path) -> Used:
    save_patch(tmp_path / "patch.safetensors", filled_patch(backbone))
    return Used(case, place, backbone, tmp_path / "patch.safetensors")


@shows("in use", lambda case: "bf16")
@torch.no_grad()
def test_in_lower_precision_it_works_and_switches_off(case: Case, used: Used) -> None:
    used.to(torch.bfloat16)
    bare = used.call()
    patched = used.attach()
    assert bare.dtype == torch.bfloat16
    assert used.call().isfinite().all()
    assert not torch.equal(used.call(), bare)
    with patched.disabled():
        assert torch.equal(used.call(), bare)
    patched.detach()
    assert torch.equal(used.call(), bare)


@shows("in use", lambda case: "threads")
def test_threads_call_one_network(case: Case, used: Used) -> None:
    patched = used.attach()
    with torch.no_grad():
        expected = used.call()
        with patched.disabled():
            bare = used.call()
    found: dict[int, Tensor] = {}

    def work(number: int) -> None:
        with torch.no_grad():
            for _ in range(3):
                if number:
                    found[number] = used.call()
                else:
                    with patched.disabled():
                        found[number] = used.call()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[0], bare)
    assert torch.equal(found[1], expected)
    assert torch.equal(found[2], expected)


@shows("in use", lambda case: "compile")
@torch.no_grad()
def test_compiled(case: Case, used: Used) -> None:
    patched = used.attach()
    expected = used.call()
    torch._dynamo.reset()
    used.network.forward = torch.compile(used.network.forward, backend="eager")
    torch.testing.assert_close(used.call(), expected, rtol=1e-5, atol=1e-6)
    with patched.disabled():
        assert not torch.equal(used.call(), expected)


@shows("in use", lambda case: "checkpointing")
def test_gradients_with_recomputation(case: Case, used: Used) -> None:
    patched = used.attach()

    def gradients() -> list[Tensor]:
        patched.patch.zero_grad()
        (used.call().square().mean() + used.call().pow(3).mean()).backward()
        return [parameter.grad.clone() for parameter in patched.patch.parameters() if parameter.grad is not None]

    expected = gradients()
    if getattr(used.network, "_supports_gradient_checkpointing", False):
        used.network.enable_gradient_checkpointing()
        used.network.train()
    else:
        from torch.utils.checkpoint import checkpoint

        for block in used.network.blocks:  # of our DiT, and of Hunyuan-DiT, which has no way of its own
            block._call_impl = functools.partial(checkpoint, type(block)._call_impl.__get__(block), use_reentrant=False)
    found = gradients()
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@shows("in use", lambda case: "offload")
@pytest.mark.parametrize("whole", [True, False])
@torch.no_grad()
def test_offloaded(case: Case, used: Used, whole: bool) -> None:
    """As pipelines' enable_model_cpu_offload and enable_sequential_cpu_offload do it, through accelerate."""
    accelerate = pytest.importorskip("accelerate")
    used.attach()
    expected, core = used.call(), used.network.core if case.core is None else used.network
    if whole:
        accelerate.cpu_offload_with_hook(core, torch.device("cpu"))
    else:
        accelerate.cpu_offload(core, torch.device("cpu"), offload_buffers=True)
    if case.name.startswith("Hunyuan") and not whole:  # nor does it without a patch: it reads weights of its children
        with pytest.raises(RuntimeError, match="meta"):
            used.call()
        return
    assert torch.equal(used.call(), expected)


@shows("in use", lambda case: "with a LoRA")
@torch.no_grad()
def test_beside_an_adapter_of_peft(case: Case, used: Used) -> None:
    peft = pytest.importorskip("peft")
    names = [
        name
        for name, module in used.network.named_modules()
        if name.endswith(("attn1.to_q", "attn.to_q", "attention.to_q", "qkv"))
    ]
    bare = used.call()
    patched = used.attach()
    alone = used.call()
    config = peft.LoraConfig(r=2, target_modules=names, init_lora_weights=False)
    peft.inject_adapter_in_model(config, used.network)
    both = used.call()
    assert not torch.equal(both, alone)
    with patched.disabled():
        adapted = used.call()
    assert not torch.equal(adapted, both)
    assert not torch.equal(adapted, bare)


@shows("in use", lambda case: "several patches")
@torch.no_grad()
def test_several_patches(case: Case, used: Used) -> None:
    bare = used.call()
    patched = used.attach()
    one = used.call()
    used.attach(filled_patch(used.backbone, seed=5), name="second", strength=0.5)
    two = used.call()
    assert not torch.equal(one, two)
    with patched.disabled():
        assert torch.equal(used.call(), bare)
    patched.detach()
    assert torch.equal(used.call(), bare)


@shows("in use", lambda case: "saved bare")
@torch.no_grad()
def test_what_is_saved_is_the_bare_network(case: Case, used: Used) -> None:
    before = {name: value.clone() for name, value in used.network.state_dict().items()}
    used.attach()
    after = used.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@shows("in use", lambda case: "in its pipeline" if case.core else "")
@torch.no_grad()
def test_in_the_stock_pipeline(case: Case, place: Path, backbone: Backbone) -> None:
    if case.core is None:
        pytest.skip("it has no pipeline")
    pipe = case.pipeline(place)
    bare = stock(case, pipe, backbone)
    patched = attach(getattr(pipe, case.core), filled_patch(backbone), force=True)
    assert not torch.equal(stock(case, pipe, backbone), bare)
    with patched.disabled():
        assert torch.equal(stock(case, pipe, backbone), bare)
    patched.detach()
    assert torch.equal(stock(case, pipe, backbone), bare)
