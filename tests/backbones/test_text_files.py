"""Text encoders as their files may lie in a published pipeline: variants, shards, and weights that are none."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dmp_cli.backbones.text import load_text
from dmp_cli.errors import CheckpointError
from tests.backbones.text_encoders import write_clip, write_t5
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


@pytest.mark.parametrize("write", [write_clip, write_t5])
@pytest.mark.parametrize("parts", [1, 2])
def test_pickles_of_a_text_encoder_are_read_by_our_reader(write, parts: int, tmp_path: Path, monkeypatch) -> None:
    plain = load_text(write(tmp_path)).encoder.record.digest
    file = tmp_path / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    file.unlink()
    if "shared.weight" in tensors:  # as transformers wrote it: one tensor under two names
        tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]
    write_pickles(file.parent, tensors, parts)
    load = torch.load

    def ours(*arguments, **options):
        assert sys._getframe(1).f_globals["__name__"] == "dmp_cli.storage.pickles"
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", ours)
    assert load_text(tmp_path).encoder.record.digest == plain


def write_pickles(folder: Path, tensors: dict[str, Any], parts: int) -> None:
    if parts == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    places = {}
    for number in range(parts):
        own, name = dict(list(tensors.items())[number::parts]), f"pytorch_model-0000{number + 1}-of-0000{parts}.bin"
        torch.save(own, folder / name)
        places |= dict.fromkeys(own, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


class Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_a_text_encoder_that_would_run_code(tmp_path: Path) -> None:
    folder = write_clip(tmp_path) / "text_encoder"
    (folder / "model.safetensors").unlink()
    torch.save({"a": Attack(tmp_path / "executed")}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin would run code .*system"):
        load_text(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_text_encoder_that_is_not_finite(tmp_path: Path) -> None:
    file = write_clip(tmp_path) / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("fc1.bias"))
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="text_encoder: its weights are not all finite: NaN in"):
        load_text(tmp_path)
