"""Several patches on one backbone: their mixtures add up, each with its strength, and each can be taken off alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli.backbones import as_backbone
from dmp_cli.errors import PatchError
from dmp_cli.patching.attachment import attach
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import call_of, filled_patch, tiny_dit


def watched(backbone: Any, call: tuple[Any, ...]) -> list[Tensor]:
    """What is added in front of every block in one forward: the block's input behind the hooks less that before."""
    before: list[Tensor] = []
    after: list[Tensor] = []
    handles = []
    for block in backbone.list_blocks():
        first = block.module.register_forward_pre_hook(lambda m, args: before.append(args[0]), prepend=True)
        last = block.module.register_forward_pre_hook(lambda m, args: after.append(args[0]))
        handles += [first, last]
    with torch.no_grad():
        backbone(*call)
    for handle in handles:
        handle.remove()
    return [y - x for x, y in zip(before, after, strict=True)]


def test_mixtures_add_up_each_with_its_strength() -> None:
    backbone = tiny_dit()
    one, two, call = filled_patch(backbone), filled_patch(backbone, seed=1), call_of(backbone)
    alone = []
    for patch in (one, two):
        patched = attach(backbone, patch)
        alone.append(watched(backbone, call)[0])  # of the first block: the others see what it changed
        patched.detach()
    both = attach(backbone, one, name="one")
    assert attach(backbone, two, name="two", strength=0.5) is both
    assert list(both.patches) == ["one", "two"]
    assert torch.allclose(watched(backbone, call)[0], alone[0] + 0.5 * alone[1], atol=1e-6)
    both.set_strength("one", 0.0)
    both.set_strength("two", 2.0)
    assert torch.allclose(watched(backbone, call)[0], 2.0 * alone[1], atol=1e-6)


def test_each_is_taken_off_alone_and_the_last_leaves_the_backbone_as_it_was() -> None:
    backbone = tiny_dit()
    call = call_of(backbone)
    needed = {name: p.requires_grad for name, p in backbone.named_parameters()}
    with torch.no_grad():
        bare = backbone(*call)
        one, two = filled_patch(backbone), filled_patch(backbone, seed=1)
        patched = attach(backbone, two)
        only_two = backbone(*call)
        patched.detach()
        patched = attach(backbone, one, name="one")
        attach(patched, two, name="two")
        both = backbone(*call)
        with patched.disabled():
            assert torch.equal(backbone(*call), bare)
        assert patched.detach("one") is backbone
        assert torch.equal(backbone(*call), only_two)
        assert patched.patch is two
        assert patched.detach("two") is backbone
        assert torch.equal(backbone(*call), bare)
    assert not torch.equal(both, only_two)
    assert {name: p.requires_grad for name, p in backbone.named_parameters()} == needed
    assert patched.detach() is backbone


def test_exactly_the_patches_require_grad() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    attach(backbone, filled_patch(backbone, seed=1), name="second")
    learnt = {id(p) for patch in patched.patches.values() for p in patch.parameters()}
    assert {id(p) for p in patched.parameters() if p.requires_grad} == learnt


def test_gate_weights_of_a_timestep_serve_each_patch() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    attach(backbone, filled_patch(backbone, seed=1), name="second")
    x, _, labels = call_of(backbone)
    timesteps = torch.full((len(x),), 300)
    with torch.no_grad():
        expected = patched(x, timesteps, labels)
        with patched.at(300):  # the gate's product with one row may differ in the last digit from that with three
            assert torch.allclose(patched(x, timesteps, labels), expected, atol=1e-6)
        assert torch.equal(patched(x, timesteps, labels), expected)


def test_on_feature_maps_of_a_stock_model() -> None:
    model = tiny_plain_unet()
    x, t = torch.ones(1, 3, 8, 8), torch.tensor([5])
    with torch.no_grad():
        bare = model(x, t).sample
        patched = attach(model, filled_patch(as_backbone(model)))
        one = model(x, t).sample
        attach(model, filled_patch(as_backbone(model), seed=1), name="second", strength=0.0)
        assert torch.equal(model(x, t).sample, one)
        patched.set_strength("second", 1.0)
        assert not torch.equal(model(x, t).sample, one)
        patched.detach()
        assert torch.equal(model(x, t).sample, bare)


def test_copies_have_patches_of_their_own() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    attach(backbone, filled_patch(backbone, seed=1), name="second")
    twin = copy.deepcopy(patched)
    call = call_of(backbone)
    with torch.no_grad():
        expected = backbone(*call)
        attach(twin.backbone, filled_patch(backbone, seed=2), name="third")
        assert list(twin.patches) == ["default", "second", "third"]
        twin.detach("second")
        assert torch.equal(backbone(*call), expected)


def test_what_is_refused() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    other = filled_patch(backbone, seed=1)
    with pytest.raises(PatchError, match="attached already") as caught:
        attach(backbone, other)
    assert "name=" in str(caught.value)
    with pytest.raises(PatchError, match="a patch called default attached already"):
        attach(backbone, other, name="default")
    with pytest.raises(PatchError, match="works alone"):
        attach(backbone, filled_patch(backbone, position="prepend", num_prompts=2), name="front")
    with pytest.raises(PatchError, match="another backbone"):
        attach(backbone, filled_patch(tiny_dit(hidden_size=32)), name="wide")
    with pytest.raises(PatchError, match="no patch called second"):
        patched.set_strength("second", 1.0)
    with pytest.raises(PatchError, match="no patch called second"):
        patched.detach("second")
    assert list(patched.patches) == ["default"]
    alone = copy.deepcopy(backbone)  # hooks and all, without the patched backbone around it
    with pytest.raises(PatchError, match="a copy of a patched one"):
        attach(alone, other, name="second")
