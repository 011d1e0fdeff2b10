"""What dmp train says of a backbone that does not say how it was trained, and of weights that are none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dmp_cli.commands.train.first_losses import FirstLosses
from tests.builders import tiny_dit, write_images
from tests.zoo.checkpoints import LIGHTNING_DIT_CONFIG, training_checkpoint

from .conftest import Run

ONE = {"num_classes": 1, "null_row": False}


def watch(losses: list[float], prediction: str = "epsilon") -> list[str | None]:
    trainee: Any = SimpleNamespace(backbone=SimpleNamespace(schedule=SimpleNamespace(prediction=prediction)))
    first = FirstLosses(trainee)
    events: Any = [SimpleNamespace(step=n, terms={"mse": torch.tensor(loss)}) for n, loss in enumerate(losses, 1)]
    return [first.remark(event) for event in events]


def test_losses_that_no_trained_backbone_has_are_remarked_once() -> None:
    remarks = watch([2.0, 1.0, 3.0, 2.0, 9.0])
    assert remarks[:3] == [None] * 3
    assert remarks[4] is None
    assert remarks[3] is not None
    assert remarks[3].startswith("the first 4 batches have a mean loss of 2; a trained backbone")
    assert "that predicts the noise has less than 1" in remarks[3]
    assert "--objective" in remarks[3]
    said = watch([2.0] * 4, "v_prediction")[3]
    assert said is not None
    assert "that predicts v has less than 1" in said
    assert not any(watch([2.0] * 4, "velocity"))  # made of data and noise, each of variance 1
    said = watch([2.3] * 4, "velocity")[3]
    assert said is not None
    assert "that predicts the velocity has less than 2" in said


@pytest.mark.parametrize("losses", [[0.9, 0.2, 1.2, 0.4], [float("nan")] * 4, [5.0, 5.0, 5.0]])
def test_losses_that_may_be_are_not_remarked(losses: list[float]) -> None:
    assert not any(watch(losses))


def test_what_is_assumed_is_printed(run: Run, tmp_path: Path) -> None:
    flat = write_images(tmp_path / "flat", classes=0)
    torch.save(tiny_dit(**ONE).state_dict(), tmp_path / "bare.pt")
    train = ("train", "--backbone", "bare.pt", "--num-heads", 2, "--data", flat, "--steps", 4, "--batch-size", 4)
    shown = run(*train, "-o", "out").stderr
    assert "assumed a linear noise schedule (--schedule) and a prediction of the noise (--objective)" in shown
    told = run(*train, "--schedule", "linear", "--objective", "epsilon", "-o", "told").stderr
    assert "assumed" not in told
    log = [(tmp_path / name / "patch.safetensors").read_bytes() for name in ("out", "told")]
    assert log[0] == log[1]


def test_unknown_flow_matching_and_broken_weights_end_before_a_file_is_written(run: Run, tmp_path: Path) -> None:
    flat, tensors = write_images(tmp_path / "flat", classes=0), tiny_dit(**ONE).state_dict()
    torch.save(training_checkpoint(tensors, LIGHTNING_DIT_CONFIG), tmp_path / "other.pt")
    broken = {name: tensor.clone() for name, tensor in tensors.items()}
    broken["blocks.1.mlp.fc1.weight"][0, 0] = float("nan")
    torch.save(broken, tmp_path / "nan.pt")
    torch.save({**tensors, "blocks.0.mlp.fc1.weight": torch.ones(32, 16, dtype=torch.int8)}, tmp_path / "int8.pt")
    words = {
        "other": "was trained by flow matching",
        "nan": "NaN in blocks.1.mlp.fc1.weight",
        "int8": "blocks.0.mlp.fc1.weight holds int8",
    }
    for name, said in words.items():
        for command in (("train", "--data", flat, "--steps", 2), ("sample", "-n", 1), ("patch",)):
            options = ("--backbone", f"{name}.pt", "--num-heads", 2, "-o", "out.safetensors")
            assert said in run(*command, *options, code=1).stderr
    assert not (tmp_path / "out.safetensors").exists()
