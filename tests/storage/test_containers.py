"""Where weights are found in the training checkpoints of public code bases, and what these say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dmp_cli.errors import CheckpointError
from dmp_cli.storage.weights import read_weights
from tests.zoo.checkpoints import (
    DIT_ARGS,
    LAYOUTS,
    LIGHTNING_DIT_CONFIG,
    training_checkpoint,
    with_prefix,
    write_accelerate_state,
)

from .weight_files import WEIGHTS, same, write


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_weights_of_a_public_layout(tmp_path: Path, layout: str) -> None:
    assert same(read_weights(write(tmp_path / "a.pt", LAYOUTS[layout](WEIGHTS))).tensors, WEIGHTS)


@pytest.mark.parametrize("prefix", ["model.", "ema_model.", "net.", "denoiser.", "model.denoiser.net.", "a.b."])
def test_what_all_names_begin_with_is_left_out(tmp_path: Path, prefix: str) -> None:
    save_file(with_prefix(prefix, WEIGHTS), tmp_path / "a.safetensors")
    assert same(read_weights(tmp_path / "a.safetensors").tensors, WEIGHTS)


def test_blocks_alone_keep_their_names(tmp_path: Path) -> None:
    blocks = {f"blocks.{index}.weight": torch.ones(2) for index in range(2)}
    assert same(read_weights(write(tmp_path / "a.pt", blocks)).tensors, blocks)


@pytest.mark.parametrize(
    "content",
    [
        {"ema": {"shadow_params": [*WEIGHTS.values()][:2]}, "model": WEIGHTS},
        {"shadow_params": [*WEIGHTS.values()], "decay": 0.999},
        {"ema": {"shadow_params": [*WEIGHTS.values()][::-1]}, "model": WEIGHTS},
    ],
    ids=["too few", "alone", "other shapes"],
)
def test_an_average_without_names_is_never_guessed(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match=r"its average has \d tensors without names") as caught:
        read_weights(write(tmp_path / "a.pt", content))
    assert "state_dict()" in str(caught.value.hint)


def test_what_a_checkpoint_says_of_its_training(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", training_checkpoint(WEIGHTS))
    assert read_weights(path).about == {"args": DIT_ARGS}
    lightning = {"state_dict": WEIGHTS, "hyper_parameters": LIGHTNING_DIT_CONFIG}
    assert read_weights(write(tmp_path / "b.ckpt", lightning)).about == {"hyper_parameters": LIGHTNING_DIT_CONFIG}
    assert read_weights(write(tmp_path / "c.pt", WEIGHTS)).about == {}


def test_a_state_of_accelerate_names_its_file(tmp_path: Path) -> None:
    folder = write_accelerate_state(tmp_path / "state", WEIGHTS)
    with pytest.raises(CheckpointError, match=f"{folder} is not a diffusers model folder") as caught:
        read_weights(folder)
    assert caught.value.hint == f"It looks like a folder of accelerate: give its file {folder / 'model.safetensors'}."
    assert same(read_weights(folder / "model.safetensors").tensors, WEIGHTS)
