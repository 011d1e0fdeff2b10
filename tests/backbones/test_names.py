"""Names of public backbones stand for their published sizes, and their patches are as small as promised."""

from __future__ import annotations

import pytest

from dmp_cli.backbones import build_backbone
from dmp_cli.backbones.names import PUBLIC_HOMES, named_sizes
from dmp_cli.config import CodecRecord, PatchConfig
from dmp_cli.patching import create_patch

# Name -> parameters, blocks, tokens at 1,024 pixels, width. A table of positions is a buffer, which is not counted:
# it is 226 M values in the file of sd3.5-medium.
PUBLIC = {
    "sd3-medium": (2_028_328_000, 24, 4096, 1536),
    "sd3.5-medium": (2_243_171_520, 24, 4096, 1536),
    "sd3.5-large": (8_056_627_520, 38, 4096, 2432),
    "flux-dev": (11_901_408_320, 19 + 38, 4096, 3072),
    "flux-schnell": (11_891_178_560, 19 + 38, 4096, 3072),
    "pixart-sigma": (610_856_096, 28, 4096, 1152),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_patch_for_a_public_size_is_small(name: str) -> None:
    parameters, blocks, tokens, width = PUBLIC[name]
    backbone = build_backbone(name)
    assert backbone.num_parameters() == parameters
    made = {}
    for grid in (None, "tokens"):
        config = PatchConfig() if grid is None else PatchConfig(prompt_grid=grid)
        patch = create_patch(backbone, config, codec=CodecRecord(), image_size=1024)
        made[grid] = [tuple(prompt.shape) for prompt in patch.prompts]
        if grid is None:
            share = sum(p.numel() for p in patch.parameters()) / parameters
            assert 0.002 <= round(share, 4) <= 0.014
    assert made == {None: [(256, width)] * blocks, "tokens": [(tokens, width)] * blocks}


def test_every_name_with_a_home_has_sizes() -> None:
    assert set(PUBLIC) < set(PUBLIC_HOMES)
    assert all(named_sizes(name) for name in PUBLIC_HOMES)
