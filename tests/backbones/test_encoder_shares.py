"""Captions that one of several text encoders is not told, against encoders whose own outputs are zeros."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmp_cli.backbones.encoder_shares import find_shares, withheld
from dmp_cli.backbones.text import load_text
from dmp_cli.errors import CheckpointError, ConfigError
from tests.backbones.joined_pipelines import write_hunyuan_pipeline
from tests.backbones.pipelines import write_xl_pipeline
from tests.backbones.text_pipelines import write_flux_text, write_sd3_text

CAPTIONS = ["a red fox", "two cats", ""]
PIPELINES: dict[str, Callable[[Path], Any]] = {
    "sd3": write_sd3_text,
    "flux": write_flux_text,
    "sdxl": write_xl_pipeline,
    "hunyuandit": write_hunyuan_pipeline,
}


def zeroed(module: nn.Module, args: Any, output: Any) -> None:
    for value in output.values():
        for tensor in value if isinstance(value, tuple) else (value,):
            tensor.zero_()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("texts")
    for name, write in PIPELINES.items():
        write(place / name)
    return {name: place / name for name in PIPELINES}


@pytest.fixture(params=PIPELINES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_one_encoder_alone_is_withheld(kind: str, folders: dict[str, Path]) -> None:
    table = load_text(folders[kind])
    names = list(table.encoder.models)  # type: ignore[attr-defined]
    assert len(names) > 1
    chosen = table.indices(CAPTIONS)
    whole = table.look_up(chosen)
    table.shares = find_shares(folders[kind], kind, names=names, length=table.encoder.asked_length)
    assert all(torch.equal(value, whole[name]) for name, value in table.look_up(chosen).items())
    for number, name in enumerate(names):
        hook = table.encoder.models[name].register_forward_hook(zeroed)  # type: ignore[attr-defined]
        with hook:
            expected = {key: value[:2] for key, value in table.encoder.encode(CAPTIONS[:2]).items()}
        rows = torch.zeros(3, len(names), dtype=torch.bool)
        rows[:2, number] = True
        with withheld.given(rows):
            found = table.look_up(chosen)
        assert found.keys() == whole.keys()
        for key, value in found.items():
            assert torch.equal(value[:2], expected[key]), (name, key)
            assert torch.equal(value[2], whole[key][2])
        assert any(not torch.equal(value, whole[key]) for key, value in found.items())


def test_several_at_once(folders: dict[str, Path]) -> None:
    table = load_text(folders["sd3"])
    chosen = table.indices(CAPTIONS[:2])
    names = ["text_encoder_3", "text_encoder"]
    table.shares = find_shares(folders["sd3"], "sd3", names=names, length=table.encoder.asked_length)
    whole = table.look_up(chosen)
    with withheld.given(torch.tensor([[True, True], [True, False]])):
        found = table.look_up(chosen)

    def zeros(value: Tensor) -> bool:
        return not value.any()

    assert zeros(found["states"][:, 16:])
    assert zeros(found["states"][0, :16, :32])
    assert zeros(found["pooled"][0, :24])
    assert torch.equal(found["states"][0, :16, 32:], whole["states"][0, :16, 32:])
    assert torch.equal(found["states"][1, :16], whole["states"][1, :16])
    assert torch.equal(found["pooled"][1], whole["pooled"][1])


def test_what_there_is_not_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="text_encoder_4: the text encoders are text_encoder, text_encoder_2, text_"):
        find_shares(folders["sd3"], "sd3", names=["text_encoder_4"], length=None)
    with pytest.raises(ConfigError, match="several text encoders, and this one's has one"):
        find_shares(folders["sd3"], "t5", names=["text_encoder"], length=None)
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text('{"hidden_size": "wide"}')
    with pytest.raises(CheckpointError, match="does not say its hidden_size"):
        find_shares(tmp_path, "sdxl", names=["text_encoder"], length=None)
