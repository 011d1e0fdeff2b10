"""The DiT of diffusers, patched as it is: the same numbers as the backbone that its folder is loaded as."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli import attach, load_backbone
from dmp_cli.backbones import as_backbone
from dmp_cli.errors import PatchError
from dmp_cli.patching.identity import backbone_digest
from tests.builders import diffusers_dit, filled_patch, zero_patch

VARIANTS: list[dict[str, Any]] = [
    {},
    {"scope": "uniform"},
    {"gate": "attention"},
    {"position": "prepend", "num_prompts": 3},
]


def call(model: Any, *, seed: int = 0) -> Tensor:
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(x, timestep=torch.tensor([0, 500, 999]), class_labels=torch.tensor([1, 4, 2])).sample


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_patch_acts_as_on_the_loaded_folder(variant: dict[str, Any], tmp_path: Path) -> None:
    model = diffusers_dit()
    model.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path), trained_with="diffusers")
    patch, bare = filled_patch(backbone, **variant), call(model)
    patched = attach(backbone, patch)
    with torch.no_grad():
        x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        expected = patched(x, torch.tensor([0, 500, 999]), torch.tensor([1, 4, 2]))
    stock = attach(model, patch)  # the weights are compared: the patch has a record
    found = call(model)
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()
    assert not torch.allclose(found, bare, rtol=1e-2)
    assert torch.equal(call(copy.deepcopy(model)), found)
    stock.detach()
    assert torch.equal(call(model), bare)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_attaching_changes_no_bit() -> None:
    model = diffusers_dit()
    bare = call(model)
    attach(model, zero_patch(as_backbone(model)))
    assert torch.equal(call(model), bare)


def test_several_patches() -> None:
    model = diffusers_dit()
    first = attach(model, filled_patch(as_backbone(model)))
    one = call(model)
    with pytest.raises(PatchError, match="has a patch attached already"):
        attach(model, filled_patch(as_backbone(model), seed=1))
    assert attach(model, filled_patch(as_backbone(model), seed=1), name="two") is first
    assert not torch.equal(call(model), one)
    first.detach("two")
    assert torch.equal(call(model), one)


def test_other_weights_and_another_arithmetic_are_refused(tmp_path: Path) -> None:
    model = diffusers_dit(norm_eps=1e-6)
    model.save_pretrained(tmp_path)
    meta = load_backbone(str(tmp_path), trained_with="meta")
    with pytest.raises(PatchError, match=r"freq_shift 0.0, not 1.0"):
        attach(model, filled_patch(meta))
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    assert backbone_digest(as_backbone(model)) == backbone_digest(meta)
    attach(model, filled_patch(meta)).detach()
    with torch.no_grad():
        model.proj_out_2.bias.add_(1)
    with pytest.raises(PatchError, match="trained on other weights"):
        attach(model, filled_patch(meta))
