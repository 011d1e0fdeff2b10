"""PixArt-alpha: identity at attach, tokens at other sizes, loading, and the seam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli import attach
from dmp_cli.backbones import as_backbone, load_backbone
from dmp_cli.config import ScheduleConfig
from tests.backbones.pipelines import tiny_pixart, write_pipeline
from tests.builders import filled_patch, zero_patch


def call(model: Any, *, side: int = 8) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 4, side, side, generator=source), torch.randn(2, 5, 32, generator=source)
    sizes: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    arguments = {"encoder_hidden_states": text, "encoder_attention_mask": mask, "added_cond_kwargs": sizes}
    return model(x, timestep=torch.tensor([3, 900]), **arguments).sample


@pytest.mark.parametrize("variant", [{}, {"gate": "attention"}, {"selection": "hard"}, {"scope": "uniform"}])
def test_attaching_changes_no_bit_and_detaching_neither(variant: dict[str, Any]) -> None:
    model = tiny_pixart()
    bare = call(model)
    patched = attach(model, zero_patch(as_backbone(model), **variant))
    assert torch.equal(call(model), bare)
    for prompts in patched.patch.prompts:
        torch.nn.init.normal_(prompts)
    assert not torch.equal(call(model), bare)
    patched.detach()
    assert torch.equal(call(model), bare)


def test_prepended_tokens_are_dropped() -> None:
    model = tiny_pixart()
    attach(model, filled_patch(as_backbone(model), position="prepend", num_prompts=3))
    assert call(model).shape == (2, 8, 8, 8)


@pytest.mark.parametrize("side", [4, 16])
def test_prompts_work_at_other_sizes(side: int) -> None:
    model = tiny_pixart()
    bare = call(model, side=side)
    attach(model, filled_patch(as_backbone(model)))
    patched = call(model, side=side)
    assert patched.shape == bare.shape
    assert not torch.equal(patched, bare)


def test_the_gate_reads_what_the_forward_computes() -> None:
    model = tiny_pixart()
    backbone = as_backbone(model)
    seen: list[torch.Tensor] = []
    backbone.gate_sources["timestep"].register_forward_hook(lambda module, args, output: seen.append(output))
    call(model)
    assert torch.equal(seen[0], backbone.gate_vector(torch.tensor([3, 900])))


def test_a_pipeline_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_pixart()
    folder = write_pipeline(
        tmp_path / "pipeline", model, text=None, beta_schedule="linear", beta_start=0.0001, beta_end=0.02
    )
    backbone = load_backbone(str(folder))
    assert torch.equal(call(backbone.core), call(model))
    assert backbone.schedule == ScheduleConfig()
    assert backbone.takes_text
    assert backbone.learns_sigma
    assert [block.hidden_shape for block in backbone.list_blocks()] == [(16, 16)] * 2


def test_sizes_in_pixels_where_it_was_trained_to_read_them(tmp_path: Path) -> None:
    model = tiny_pixart(use_additional_conditions=True)
    conditions = as_backbone(model)._size_conditions(torch.zeros(2, 4, 8, 16))  # type: ignore[attr-defined]
    assert conditions["resolution"].tolist() == [[64.0, 128.0]] * 2
    assert conditions["aspect_ratio"].tolist() == [[0.5]] * 2
