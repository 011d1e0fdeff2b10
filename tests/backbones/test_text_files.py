"""Text encoders as their files may lie in a published pipeline: variants, shards, and weights that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dmp_cli.backbones.text import load_text
from dmp_cli.errors import CheckpointError
from tests.backbones.text_encoders import write_clip
from tests.zoo.diffusers_folders import shard


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_variants_and_shards_of_a_text_encoder(tmp_path: Path, variant: str | None) -> None:
    plain = load_text(write_clip(tmp_path))
    whole = tmp_path / "text_encoder" / "model.safetensors"
    if variant is None:
        shard(whole.parent, stem="model")
    else:
        whole.rename(whole.with_name(f"model.{variant}.safetensors"))
    assert not whole.exists()
    assert load_text(tmp_path).encoder.record.digest == plain.encoder.record.digest


def test_a_text_encoder_that_is_not_finite(tmp_path: Path) -> None:
    file = write_clip(tmp_path) / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("fc1.bias"))
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="text_encoder: its weights are not all finite: NaN in"):
        load_text(tmp_path)
