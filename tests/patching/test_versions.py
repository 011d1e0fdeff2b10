"""Two versions of one network side by side: each row is as if its version had been called alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli.backbones import as_backbone
from dmp_cli.errors import PatchError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.lora import create_adapter
from dmp_cli.patching.versions import AdapterVersions, BackboneVersions, PatchVersions, Versions
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import call_of, filled_patch, tiny_dit

VARIANTS: dict[str, dict[str, Any]] = {
    "distinct": {},
    "uniform": {"scope": "uniform"},
    "attention": {"gate": "attention"},
    "constant": {"gate": "constant"},
    "hard": {"selection": "hard"},
    "conditioning": {"gate_input": "conditioning"},
    "prepend": {"position": "prepend", "num_prompts": 3},
}


def rows(count: int) -> Iterator[Tensor]:
    """Which rows are the other version's: one half, all, every second one."""
    yield torch.arange(count) >= count // 2
    yield torch.ones(count, dtype=torch.bool)
    yield torch.arange(count) % 2 == 0


def check(versions: Versions, call: tuple[Any, ...], ours: Tensor, theirs: Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(versions.ours(*call), ours)
        assert torch.equal(versions.theirs(*call), theirs)
        assert torch.equal(versions(*call, against=torch.zeros(len(ours), dtype=torch.bool)), ours)
        for against in rows(len(ours)):
            expected = torch.where(against.view(-1, 1, 1, 1), theirs, ours)
            apart = (versions(*call, against=against) - expected).abs().max()
            assert apart <= 2e-6 * expected.abs().max()  # sums in another order, for other sizes of a batch
    assert not torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_patch_against_the_backbone_and_the_other_way_round(name: str) -> None:
    backbone = tiny_dit()
    call, patch = call_of(backbone), filled_patch(backbone, **VARIANTS[name])
    with torch.no_grad():
        bare = backbone(*call)
        patched = attach(backbone, patch, name="one")
        with_patch = patched(*call)
    check(PatchVersions(patched, theirs=()), call, with_patch, bare)
    check(PatchVersions(patched, theirs=("one",)), call, bare, with_patch)
    with torch.no_grad():
        assert torch.equal(patched(*call), with_patch)  # nothing is left behind


@pytest.mark.parametrize("make", [tiny_dit, lambda: as_backbone(tiny_plain_unet())])
def test_a_patch_against_another_one(make: Any) -> None:
    backbone = make()
    call, one, two = call_of(backbone), filled_patch(backbone), filled_patch(backbone, seed=1)
    alone = []
    with torch.no_grad():
        for patch in (one, two):
            patched = attach(backbone, patch)
            alone.append(patched(*call))
            patched.detach()
    patched = attach(backbone, one, name="one")
    attach(backbone, two, name="two")
    check(PatchVersions(patched, theirs=("two",)), call, *alone)


def test_gate_weights_that_are_kept_for_a_step() -> None:
    backbone = tiny_dit()
    x, _, condition = call_of(backbone)
    call = (x, torch.full((len(x),), 7), condition)
    patched = attach(backbone, filled_patch(backbone), name="one")
    versions = PatchVersions(patched, theirs=("one",))
    against = torch.arange(len(x)) == 0
    with torch.no_grad():
        expected = versions(*call, against=against)
        with patched.at(7):
            assert torch.allclose(versions(*call, against=against), expected, atol=1e-6)


def test_an_adapter_and_the_backbone() -> None:
    backbone = tiny_dit().eval()
    call = call_of(backbone)
    with torch.no_grad():
        bare = backbone(*call)
        adapter = create_adapter(backbone, rank=2, targets=None, seed=0)
        for name, parameter in adapter.parameters.items():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
        adapted = backbone(*call)
    check(AdapterVersions(backbone, is_ours=True), call, adapted, bare)
    check(AdapterVersions(backbone, is_ours=False), call, bare, adapted)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_another_backbone() -> None:
    one, two = tiny_dit().eval(), tiny_dit(seed=1).eval()
    call = call_of(one)
    with torch.no_grad():
        check(BackboneVersions(one, two), call, one(*call), two(*call))


def test_names_that_are_not_there() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone), name="one")
    with pytest.raises(PatchError, match="no patch called two is attached"):
        PatchVersions(patched, theirs=("two",))
    with pytest.raises(PatchError, match="no patch called two"), patched.rows({"two": torch.ones(2)}):
        pass
