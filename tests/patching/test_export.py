"""A baked table, added by plain code, gives the outputs of the patch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dmp_cli.backbones import as_backbone
from dmp_cli.backbones.base import Backbone
from dmp_cli.errors import ConfigError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.export import bake_table
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import call_of, filled_patch, tiny_dit

STRENGTH = {"dit": 0.5, "unet": 40.0}  # weights of 1/N hardly move the tiny U-Net
TIMESTEPS = [999, 500, 3]
BACKBONES: dict[str, Callable[[], Backbone]] = {"dit": tiny_dit, "unet": lambda: as_backbone(tiny_plain_unet())}


def add_by_hand(backbone: Backbone, tensors: dict[str, torch.Tensor], step: int) -> list[Any]:
    """Add row ``step`` of a table with plain hooks, without any gate."""

    def hook(index: int) -> Any:
        dense = tensors.get(f"mixtures.{index}")
        mixture = dense[step] if dense is not None else tensors[f"weights.{index}"][step] * tensors[f"prompts.{index}"]
        mixture = mixture if mixture.dim() == 2 else mixture.permute(2, 0, 1)

        def add(module: Any, args: Any, kwargs: Any) -> Any:
            return backbone.put_hidden(args, kwargs, backbone.take_hidden(args, kwargs) + mixture)

        return add

    blocks = backbone.list_blocks()
    count = sum(name.startswith(("mixtures", "prompts")) for name in tensors)
    return [blocks[i].module.register_forward_pre_hook(hook(i), with_kwargs=True) for i in range(count)]


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("variant", [{}, {"gate": "none"}, {"gate": "constant", "depth": 1}])
def test_a_table_added_by_plain_code_equals_the_patch(family: str, dense: bool, variant: dict[str, Any]) -> None:
    backbone = BACKBONES[family]()
    strength = 4.0 if (family, variant.get("gate")) == ("unet", "none") else STRENGTH[family]
    patched = attach(backbone, filled_patch(backbone, **variant), strength=strength)
    x, _, labels = call_of(backbone)
    tensors = bake_table(patched, TIMESTEPS, dense=dense)
    for step, timestep in enumerate(TIMESTEPS):
        timesteps = torch.full((len(x),), timestep)
        expected = patched(x, timesteps, labels)
        with patched.disabled():
            bare = patched(x, timesteps, labels)
            handles = add_by_hand(backbone, tensors, step)
            found = patched(x, timesteps, labels)
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(bare, expected, rtol=1e-3, atol=1e-2)


def test_a_gate_that_reads_the_class_has_no_table() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone, gate_input="conditioning"))
    with pytest.raises(ConfigError, match="gate reads the conditioning"):
        bake_table(patched, TIMESTEPS)
