"""Wrapped diffusers models: the sizes that are recorded for them."""

from __future__ import annotations

import json

from dmp_cli.backbones.wrapped import sizes_of
from tests.backbones.pipelines import tiny_unet


def test_sizes_hold_only_what_differs_from_the_default() -> None:
    sizes = sizes_of(tiny_unet())
    assert sizes["class"] == "UNet2DConditionModel"
    assert sizes["block_out_channels"] == [16, 32]
    assert "in_channels" not in sizes
    assert json.loads(json.dumps(sizes)) == sizes
