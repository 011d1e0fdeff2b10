"""Backbones without their weights: sizes from a public name, a file of sizes, or a weight file."""

import json

import pytest
import torch

from dmp_cli.backbones import build_backbone
from dmp_cli.backbones.native_file import save_backbone
from dmp_cli.errors import CheckpointError, ConfigError
from tests.builders import PIXELS, diffusers_dit, tiny_dit, write_weights


def test_sizes_of_the_public_names():
    # 1000 classes and a null row, positions counted (paper, Table 1)
    assert build_backbone("DiT-XL/2").num_parameters() == 675_129_632
    assert build_backbone("dit-b2").num_parameters() == 130_512_416
    assert build_backbone("dit-b2", num_classes=1).num_parameters() == 129_744_416
    small = build_backbone("dit-s8", input_size=64, in_channels=3)
    assert (small.sizes["depth"], small.sizes["patch_size"], small.sample_shape) == (12, 8, (3, 64, 64))


def test_sizes_from_a_file(tmp_path):
    made = tiny_dit(mlp_size=64)  # four times the width, as in every DiT of diffusers
    save_backbone(tmp_path / "own.safetensors", made, codec=PIXELS, training={})
    (tmp_path / "sizes.json").write_text(json.dumps(made.sizes))
    diffusers_dit().save_pretrained(tmp_path / "folder")
    for name in ("own.safetensors", "sizes.json", "folder"):
        built = build_backbone(str(tmp_path / name))
        assert built.sizes == made.sizes
        assert built.device.type == "meta"
    built = build_backbone(str(tmp_path / "sizes.json"), device="cpu", num_classes=1, in_channels=None)
    assert (built.num_classes, built.has_null, built.sample_shape) == (1, False, made.sample_shape)


@pytest.mark.parametrize("text", ["", "[1]", '{"depth": 0}', '{"width": 3}'])
def test_files_of_sizes_that_cannot_be_read(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises((CheckpointError, ConfigError)):
        build_backbone(str(tmp_path / "a.json"))


def test_sizes_of_an_unknown_family(tmp_path):
    with pytest.raises(CheckpointError, match="unknown family"):
        build_backbone(write_weights(tmp_path / "a.safetensors", {"a": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="does not exist"):
        build_backbone(str(tmp_path / "b.safetensors"))
