"""What a forward adds belongs to it alone: in threads, and where blocks run again in the backward pass."""

from __future__ import annotations

import copy
import functools
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dmp_cli.backbones import as_backbone
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.patched import PatchedBackbone
from dmp_cli.patching.versions import PatchVersions
from tests.backbones.pipelines import tiny_pixart, tiny_plain_unet, tiny_unet
from tests.builders import call_of, filled_patch, tiny_dit

Call = Callable[[int], Tensor]


def dit(**variant: Any) -> tuple[Any, PatchedBackbone, Call]:
    """A patched DiT, and a call of it at a timestep with its own noise."""
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone, **variant))

    def call(timestep: int) -> Tensor:
        x, _, labels = call_of(backbone, seed=timestep)
        return patched(x, torch.full((3,), timestep), labels)

    return backbone, patched, call


def pixart(**variant: Any) -> tuple[Any, PatchedBackbone, Call]:
    """A stock PixArt, patched, and a call of it by its own signature."""
    model = tiny_pixart()
    patched = attach(model, filled_patch(as_backbone(model), **variant))
    text, mask = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)), torch.ones(2, 5)

    def call(timestep: int) -> Tensor:
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(timestep))
        more = {"encoder_attention_mask": mask, "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
        return model(x, timestep=torch.full((2,), timestep), encoder_hidden_states=text, **more).sample

    return model, patched, call


def unet(**variant: Any) -> tuple[Any, PatchedBackbone, Call]:
    """A stock U-Net, patched: prompts on feature maps."""
    model = tiny_plain_unet()
    patched = attach(model, filled_patch(as_backbone(model), **variant))

    def call(timestep: int) -> Tensor:
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(timestep))
        return model(x, torch.full((2,), timestep)).sample

    return model, patched, call


def text_unet(**variant: Any) -> tuple[Any, PatchedBackbone, Call]:
    """A stock U-Net that reads text: of a prompted block, only what is inside its transformers runs again."""
    model = tiny_unet()
    patched = attach(model, filled_patch(as_backbone(model), **variant))
    text = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))

    def call(timestep: int) -> Tensor:
        x = torch.randn(2, *patched.backbone.sample_shape, generator=torch.Generator().manual_seed(timestep))
        return model(x, torch.full((2,), timestep), encoder_hidden_states=text).sample

    return model, patched, call


def versions(**variant: Any) -> tuple[Any, PatchedBackbone, Call]:
    """A DiT with and without its patch in one batch; which row is whose depends on the timestep."""
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone, **variant), name="one")
    pair = PatchVersions(patched, theirs=("one",))

    def call(timestep: int) -> Tensor:
        x, _, labels = call_of(backbone, seed=timestep)
        return pair(x, torch.full((3,), timestep), labels, against=torch.arange(3) != timestep % 3)

    return backbone, patched, call


FAMILIES = {"dit": dit, "pixart": pixart, "unet": unet, "text-unet": text_unet, "versions": versions}
VARIANTS = [
    ("dit", {}),
    ("dit", {"position": "prepend", "num_prompts": 3}),
    ("pixart", {}),
    ("unet", {}),
    ("versions", {}),
    ("dit", {"experts": "lora"}),
    ("dit", {"experts": "both", "position": "prepend", "num_prompts": 3}),
    ("pixart", {"experts": "lora"}),
    ("text-unet", {"experts": "both"}),
    ("versions", {"experts": "both"}),
]


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Threads take turns so often that shared state would be mixed up."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
@pytest.mark.usefixtures("many_switches")
def test_threads_do_not_mix_their_forwards(family: str, variant: dict[str, Any]) -> None:
    _, _, call = FAMILIES[family](**variant)
    steps = [10, 500, 990]
    with torch.no_grad():
        expected = {step: call(step) for step in steps}
    together, wrong = threading.Barrier(len(steps)), []

    def work(step: int) -> None:
        together.wait()
        with torch.no_grad():
            wrong.extend(step for _ in range(15) if not torch.equal(call(step), expected[step]))

    threads = [threading.Thread(target=work, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_patch_is_switched_off_in_one_thread_alone() -> None:
    _, patched, call = dit()
    with torch.no_grad():
        on = call(500)
        with patched.disabled():
            off, seen = call(500), []
            thread = threading.Thread(target=lambda: seen.append(call(500)))
            thread.start()
            thread.join()
    assert not torch.equal(on, off)
    with torch.no_grad():
        assert torch.equal(seen[0], on)


def gradients(patched: PatchedBackbone, loss: Callable[[], Tensor]) -> list[Tensor]:
    patched.patch.zero_grad()
    loss().backward()
    return [parameter.grad.clone() for parameter in patched.patch.parameters() if parameter.grad is not None]


def recompute_blocks(model: Any) -> None:
    """Run every block again in the backward pass, hooks and all, as diffusers' models do."""
    if hasattr(model, "enable_gradient_checkpointing"):
        model.enable_gradient_checkpointing()
        return
    for block in model.blocks:
        block._call_impl = functools.partial(checkpoint, type(block)._call_impl.__get__(block), use_reentrant=False)


def two_forwards(call: Call) -> Tensor:
    return call(10).square().mean() + call(900).pow(3).mean()


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_two_forwards_before_one_backward(family: str, variant: dict[str, Any]) -> None:
    model, patched, call = FAMILIES[family](**variant)
    expected = gradients(patched, lambda: two_forwards(call))
    recompute_blocks(model)
    found = gradients(patched, lambda: two_forwards(call))
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def test_what_is_set_after_a_forward_does_not_reach_its_recomputation() -> None:
    model, patched, call = dit()
    expected = gradients(patched, lambda: two_forwards(call))
    recompute_blocks(model)
    loss = two_forwards(call)
    with torch.no_grad(), patched.disabled():
        call(300)
    patched.strength = 0.25
    with patched.disabled():
        found = gradients(patched, lambda: loss)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def test_a_bare_forward_stays_bare_when_it_runs_again() -> None:
    model, patched, call = dit()
    model.pos_embed.requires_grad_(True)
    recompute_blocks(model)

    def slope(*, then: Callable[[], Any]) -> Tensor:
        model.pos_embed.grad = None
        with patched.disabled():
            loss = call(10).square().mean()
        then()
        loss.backward()
        return model.pos_embed.grad.clone()

    assert torch.equal(slope(then=lambda: None), slope(then=lambda: call(900)))


def test_regions_of_several_blocks() -> None:
    model, patched, call = dit()
    expected = gradients(patched, lambda: two_forwards(call))
    first, second = model.blocks[:2]
    inner = [type(block)._call_impl.__get__(block) for block in (first, second)]

    def both(x: Tensor, c: Tensor) -> Tensor:
        return inner[1](inner[0](x, c), c)

    first._call_impl = functools.partial(checkpoint, both, use_reentrant=False)
    second._call_impl = lambda x, c: x
    found = gradients(patched, lambda: two_forwards(call))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def test_the_whole_network_may_run_again() -> None:
    _, patched, call = dit()
    expected = gradients(patched, lambda: two_forwards(call))
    again = functools.partial(checkpoint, call, use_reentrant=False)
    found = gradients(patched, lambda: two_forwards(again))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def test_forwards_are_forgotten_with_their_tensors() -> None:
    model, patched, call = dit()
    recompute_blocks(model)
    loss = two_forwards(call)
    known = patched._first.link.in_flight._known
    assert known
    loss.backward()
    del loss
    gc.collect()
    with torch.no_grad():
        call(10)
    gc.collect()
    assert not known


def test_copies_have_a_state_of_their_own() -> None:
    _, patched, call = dit()
    with torch.no_grad():
        expected = call(500)
        twin = copy.deepcopy(patched)
        with patched.disabled():
            x, _, labels = call_of(twin.backbone, seed=500)
            assert torch.equal(twin(x, torch.full((3,), 500), labels), expected)
