"""Two versions of one network side by side: each row is as if its version had been called alone."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli.backbones import Backbone, as_backbone
from dmp_cli.errors import PatchError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.versions import AdapterVersions, BackboneVersions, PatchVersions, Versions
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import call_of, filled_patch, tiny_dit
from tests.patching.adapters import create, fill
from tests.patching.counting import Graphs

VARIANTS: dict[str, dict[str, Any]] = {
    "distinct": {},
    "uniform": {"scope": "uniform"},
    "attention": {"gate": "attention"},
    "constant": {"gate": "constant"},
    "hard": {"selection": "hard"},
    "conditioning": {"gate_input": "conditioning"},
    "experts": {"experts": "lora", "num_experts": 2},
    "both": {"experts": "both"},
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


def plain_unet() -> Backbone:
    return as_backbone(tiny_plain_unet())


ON_MAPS = [(plain_unet, name) for name in ("distinct", "uniform", "constant")]  # what feature maps can have


@pytest.mark.parametrize(("make", "name"), [*[(tiny_dit, name) for name in VARIANTS], *ON_MAPS])
def test_a_patch_against_the_backbone_and_the_other_way_round(make: Callable[[], Backbone], name: str) -> None:
    backbone = make()
    call, patch = call_of(backbone), filled_patch(backbone, **VARIANTS[name])
    with torch.no_grad():
        bare = backbone(*call)
        patched = attach(backbone, patch, name="one")
        with_patch = patched(*call)
    check(PatchVersions(patched, theirs=()), call, with_patch, bare)
    check(PatchVersions(patched, theirs=("one",)), call, bare, with_patch)
    with torch.no_grad():
        assert torch.equal(patched(*call), with_patch)  # nothing is left behind


@pytest.mark.parametrize(("make", "other"), [(tiny_dit, "distinct"), (tiny_dit, "attention"), (plain_unet, "uniform")])
def test_a_patch_against_another_one(make: Callable[[], Backbone], other: str) -> None:
    backbone = make()
    call, one, two = call_of(backbone), filled_patch(backbone), filled_patch(backbone, seed=1, **VARIANTS[other])
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


def adapted(make: Callable[[], Backbone], *, is_dora: bool = False) -> tuple[Backbone, tuple[Any, ...], Tensor, Tensor]:
    """A backbone with an adapter inside, a call, and what it gives without and with the adapter."""
    backbone = make().eval()
    call = call_of(backbone)
    with torch.no_grad():
        bare = backbone(*call)
        fill(create(backbone, is_dora=is_dora))
        backbone.requires_grad_(False)  # as in one that is loaded; torch picks matrix products by it, to the last bit
        return backbone, call, bare, backbone(*call)


@pytest.mark.parametrize("is_dora", [False, True])
@pytest.mark.parametrize("make", [tiny_dit, plain_unet])
def test_an_adapter_and_the_backbone(make: Callable[[], Backbone], is_dora: bool) -> None:
    backbone, call, bare, with_adapter = adapted(make, is_dora=is_dora)
    check(AdapterVersions(backbone, is_ours=True), call, with_adapter, bare)
    check(AdapterVersions(backbone, is_ours=False), call, bare, with_adapter)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    with torch.no_grad():
        assert torch.equal(backbone(*call), with_adapter)  # nothing is left behind
        twin = copy.deepcopy(backbone)
        check(AdapterVersions(twin, is_ours=False), call, bare, with_adapter)
        assert torch.equal(backbone(*call), with_adapter)


def test_threads_do_not_mix_the_rows_of_an_adapter() -> None:
    backbone, call, _, _ = adapted(tiny_dit)
    versions, masks = AdapterVersions(backbone, is_ours=False), [*rows(3), torch.zeros(3, dtype=torch.bool)]

    def predict(against: Tensor) -> Tensor:
        with torch.no_grad():
            return versions(*call, against=against)

    expected = [predict(against) for against in masks]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns so often that shared state would be mixed up
    try:
        with ThreadPoolExecutor(len(masks)) as pool:
            for _ in range(10):
                for found, wanted in zip(pool.map(predict, masks), expected, strict=True):
                    assert torch.equal(found, wanted)
    finally:
        sys.setswitchinterval(before)


def test_another_backbone() -> None:
    one, two = tiny_dit().eval(), tiny_dit(seed=1).eval()
    call = call_of(one)
    with torch.no_grad():
        check(BackboneVersions(one, two), call, one(*call), two(*call))


def test_compiled_they_are_one_graph_for_both_and_one_for_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, compile, small = Graphs(), torch.compile, {"depth": 1}
    monkeypatch.setattr(torch, "compile", lambda module, **how: compile(module, backend=graphs, fullgraph=True, **how))
    backbone, call, _, _ = adapted(lambda: tiny_dit(**small))
    one, two = tiny_dit(**small).eval(), tiny_dit(seed=1, **small).eval()
    for versions, count in ((AdapterVersions(backbone, is_ours=False), 2), (BackboneVersions(one, two), 3)):
        masks = [torch.arange(3) < 1, torch.zeros(3, dtype=torch.bool)] * 2
        with torch.no_grad():
            expected = [versions(*call, against=against) for against in masks]
            graphs.count = 0
            versions.compile()
            for against, wanted in zip(masks, expected, strict=True):
                assert torch.equal(versions(*call, against=against), wanted)
        assert graphs.count == count  # of two networks, ours has a graph for each size of a batch


def test_names_that_are_not_there() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone), name="one")
    with pytest.raises(PatchError, match="no patch called two is attached"):
        PatchVersions(patched, theirs=("two",))
    with pytest.raises(PatchError, match="no patch called two"), patched.rows({"two": torch.ones(2)}):
        pass
