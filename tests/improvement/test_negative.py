"""The version that is sampled against: how it is trained, and which of its files ``--against`` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.improvement import Negative, against


@pytest.mark.parametrize(
    ("method", "file"),
    [
        ("lora", "adapter-ema"),
        ("dora", "adapter-ema"),
        ("bitfit", "tuned-ema.safetensors"),
        ("difffit", "tuned-ema.safetensors"),
        ("dmp", "patch-ema.safetensors"),
        ("prompt-tuning", "patch-ema.safetensors"),
        ("full", "backbone-ema.safetensors"),
    ],
)
def test_the_average_is_sampled_against(method: str, file: str) -> None:
    assert Negative(method).learnt(Path("run")) == Path("run") / file


def test_its_training_mirrors_nothing_and_can_go_on() -> None:
    negative = Negative("lora", {"lr": 1e-3, "lora_rank": 4})
    words = negative.train(["--backbone", "b"], own=Path("own"), run=Path("run"), seed=3, steps=40)
    assert " ".join(words) == (
        "train --backbone b --data own --method lora --steps 40 --lr 0.001 --lora-rank 4 --no-flip --ema 0.999 "
        "--seed 3 --sample-every 0 --keep 1 --log-every 2 --save-every 10 -o run --resume"
    )


def test_a_scale_that_is_not_known_is_written_as_w() -> None:
    assert against(Path("v"), None)[-1] == "W"
    assert against(Path("v"), 1.0)[-2:] == ["--against-scale", "1"]
