"""Compiling by region: one graph for all blocks alike, and the blocks are as before afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dmp_cli import PatchConfig, attach, sample
from dmp_cli.backbones import as_backbone
from dmp_cli.backbones.caption_table import CaptionTable
from dmp_cli.backbones.compiling import compiled_around, compiled_blocks, has_regions
from dmp_cli.patching.attachment import create_patch
from dmp_cli.training.memory import recomputed
from tests.backbones.pipelines import tiny_pixart, tiny_plain_unet
from tests.builders import filled_patch, tiny_dit
from tests.patching.counting import Graphs


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    """Counts what is compiled, and runs it eagerly."""
    found, compile = Graphs(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **how: compile(module, backend=found, fullgraph=True, **how))
    return found


@pytest.mark.slow
def test_one_graph_for_all_blocks_steps_chunks_and_classes(graphs: Graphs) -> None:
    backbone = tiny_dit(depth=10)  # more blocks than graphs that torch keeps of one function
    patched = attach(backbone, filled_patch(backbone))
    how: dict[str, Any] = {"n": 5, "batch_size": 2, "steps": 3, "sampler": "ddim", "guidance": 2.0, "output": "array"}
    eager = sample(patched, **how)
    assert np.array_equal(sample(patched, compile=True, **how), eager)
    assert graphs.count == 1
    led = sample(patched, against="base", **how)
    assert np.array_equal(sample(patched, against="base", compile=True, **how), led)
    assert graphs.count == 2  # the rows of both versions are another size
    assert not any("forward" in vars(block.module) for block in backbone.list_blocks())
    patched.detach()
    assert np.array_equal(sample(backbone, compile=True, **how), sample(backbone, **how))


def test_training_and_measuring_have_a_graph_each(graphs: Graphs) -> None:
    backbone = tiny_dit(depth=10).requires_grad_(False)
    patched = attach(backbone, filled_patch(backbone))
    call = torch.randn(2, *backbone.sample_shape), torch.tensor([3, 900]), torch.tensor([0, 1])
    wanted = patched(*call)
    with compiled_blocks(backbone):
        for timesteps in (call[1], call[1] + 5):
            patched(call[0], timesteps, call[2]).square().mean().backward()
        assert graphs.count == 1
        with torch.no_grad():
            assert torch.equal(patched(*call), wanted)
        assert graphs.count == 2
    assert all(parameter.grad is not None for parameter in patched.patch.parameters())


@pytest.mark.slow
def test_blocks_of_many_shapes_are_compiled_whole() -> None:
    assert not has_regions(as_backbone(tiny_plain_unet()))
    assert not has_regions(tiny_dit(depth=1))  # nothing repeats
    assert has_regions(as_backbone(tiny_pixart()))


def test_recomputed_blocks_of_many_shapes_are_compiled_too(graphs: Graphs) -> None:
    """Blocks that are recomputed have a forward of their own, which is not a compiled one."""
    backbone = tiny_dit(depth=1)
    with compiled_blocks(backbone), recomputed(backbone):
        assert compiled_around(backbone, backbone) is not backbone
    many = tiny_dit(depth=4)
    with compiled_blocks(many), recomputed(many):
        assert compiled_around(many, many) is many
    assert not any("forward" in vars(block.module) for block in many.list_blocks())


def test_a_forward_that_somebody_has_put_there_stays() -> None:
    backbone = tiny_dit(depth=4)
    block = backbone.list_blocks()[0].module
    block.forward = mine = block.forward  # as accelerate does, which moves weights in it
    with compiled_blocks(backbone):
        assert vars(block)["forward"] is mine
    assert vars(block)["forward"] is mine


def test_experts_inside_of_blocks_are_compiled_whole() -> None:
    backbone = tiny_dit(depth=4)
    assert has_regions(backbone)
    patch = create_patch(backbone, PatchConfig(experts="lora", num_experts=2, expert_rank=2))
    patched = attach(backbone, patch, force=True)
    assert not has_regions(backbone)
    patched.detach()
    assert has_regions(backbone)


def test_other_captions_make_no_other_graph() -> None:
    """They are looked up outside of all graphs: each caption would have one of its own, and the encoder too."""
    table, found = CaptionTable(Lengths()), Graphs()  # type: ignore[arg-type]
    network = torch.compile(lambda condition: 2 * table.look_up(condition)["states"], backend=found)
    for texts in (["a", "bcd"], ["efgh", "ij"], ["k", "lmnopq"]):
        wanted = [[[2.0 * len(text)]] for text in texts]
        assert network(table.indices(texts)).tolist() == wanted
    assert found.count == 1


class Lengths:
    """A text encoder whose states are the lengths of captions, through a sum that could be in a graph."""

    device = torch.device("cpu")

    def encode(self, captions: list[str]) -> dict[str, torch.Tensor]:
        return {"states": torch.ones(1, 1, len(captions[0])).sum(-1, keepdim=True)}
