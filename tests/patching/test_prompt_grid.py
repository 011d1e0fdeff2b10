"""``--prompt-grid``: fewer prompts than tokens, resized to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dmp_cli.backbones import as_backbone, build_backbone, load_backbone
from dmp_cli.config import PatchConfig, build
from dmp_cli.errors import ConfigError, PatchError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.compatibility import check_variant
from dmp_cli.patching.export import bake_table
from dmp_cli.patching.file import load_patch, save_patch
from tests.backbones.pipelines import tiny_pixart, tiny_unet
from tests.builders import call_of, filled_patch, tiny_dit, write_meta_checkpoint, zero_patch


@pytest.mark.parametrize("variant", [{}, {"gate": "attention"}, {"selection": "hard"}, {"experts": "both"}])
@pytest.mark.parametrize("make", [tiny_dit, lambda: as_backbone(tiny_pixart())])
def test_a_fresh_patch_changes_no_bit(make: Any, variant: dict[str, Any]) -> None:
    backbone = make()
    patch = zero_patch(backbone, prompt_grid=(2, 2), **variant)
    assert {tuple(p.shape) for p in patch.prompts} == {(4, 16)}
    if backbone.takes_text:
        return
    call = call_of(backbone)
    with torch.no_grad():
        before = backbone(*call)
        assert torch.equal(attach(backbone, patch)(*call), before)


def resized(tokens: Tensor, side: int) -> Tensor:
    """(B, 4, D) of a 2x2 grid as (B, side * side, D)."""
    maps = tokens.transpose(1, 2).reshape(len(tokens), -1, 2, 2)
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


def test_what_is_added_by_hand() -> None:
    """Prompts and weights are each resized to the tokens, then multiplied, as at other image sizes."""
    backbone = tiny_dit()
    patch = filled_patch(backbone, prompt_grid=(2, 2))
    patched = attach(backbone, patch)
    x, timesteps, labels = call_of(backbone)
    seen: list[Tensor] = []

    def keep(module: Any, args: Any) -> None:
        seen.append(args[0])

    with torch.no_grad():
        block = backbone.list_blocks()[0].module
        handle = block.register_forward_pre_hook(keep)
        patched(x, timesteps, labels)
        with patched.disabled():
            patched(x, timesteps, labels)
        handle.remove()
        weights = patched.gating(timesteps).weights[:, 0, :, None]
        expected = seen[1] + resized(weights, 4) * resized(patch.prompts[0][None], 4)
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-6)


def test_file_table_and_counts(tmp_path: Path) -> None:
    path = write_meta_checkpoint(tmp_path / "a.pt", tiny_dit())
    backbone = load_backbone(str(path), num_classes=4, num_heads=2)
    patch = filled_patch(backbone, prompt_grid=(2, 2))
    save_patch(tmp_path / "p.safetensors", patch)
    read = load_patch(tmp_path / "p.safetensors")
    assert read.config.prompt_grid == (2, 2)
    patched = attach(backbone, read)
    table = bake_table(patched, [7], dense=True)
    with torch.no_grad():
        weights = patched.gating(torch.tensor([7])).weights[:, 1, :, None]
    expected = resized(weights, 4) * resized(read.prompts[1][None], 4)
    torch.testing.assert_close(table["mixtures.1"], expected, rtol=1e-5, atol=1e-6)
    assert "prompt_grid" not in PatchConfig().model_dump()
    with torch.device("meta"):
        large = zero_patch(build_backbone("dit-xl2"), prompt_grid=(8, 8))
    assert large.num_parameters() == 28 * 64 * 1152 + 64 * 1153 + 64


def test_another_number_of_places_is_another_patch(tmp_path: Path) -> None:
    patch = zero_patch(tiny_dit(), prompt_grid=(2, 2))
    patch.config = PatchConfig()
    with pytest.raises(PatchError, match="prompts of shape"):
        attach(tiny_dit(), patch)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prompt_grid": "2x3"}, "as many rows as columns"),
        ({"prompt_grid": "many"}, "--prompt-grid many"),
        ({"prompt_grid": "2x2", "position": "prepend"}, "prepended ones have no place"),
        ({"prompt_grid": "2x2", "experts": "lora"}, "--prompt-grid is about prompts"),
    ],
)
def test_options_that_make_no_patch(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(PatchConfig, **options)
    assert reason in raised.value.message


def test_feature_maps_have_their_own() -> None:
    with pytest.raises(ConfigError, match="--prompt-grid is for token backbones"):
        check_variant(as_backbone(tiny_unet()), PatchConfig(prompt_grid=(2, 2)))
