"""A run whose steps are all not finite ends within 20 steps, and says what is to blame: backbone, images or patch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.errors import DivergedError
from dmp_cli.training import loop as loops
from dmp_cli.training.guards import Guard
from dmp_cli.training.methods import Trainee
from dmp_cli.training.objective import Objective
from dmp_cli.training.trainer import train

from .test_trainer import ready


@pytest.fixture(autouse=True)
def _nothing_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone made in code has no record, so no patch file can be written. Checkpoints can."""
    monkeypatch.setattr(Trainee, "write", lambda *arguments: None)


class LateGuard(Guard):
    """Reads as late as on a GPU."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lag = 4


def ended(trainee: Trainee, how: dict[str, Any]) -> tuple[DivergedError, int]:
    """The error that ends the run, and how many steps it took."""
    done = []

    def run() -> None:
        for event in train(trainee, **how):
            done.append(event.step)

    with pytest.raises(DivergedError) as caught:
        run()
    return caught.value, len(done) + 1


def overflow(trainee: Trainee, factor: float) -> None:
    """Let the frozen backbone's own output be too large for some precision."""
    with torch.no_grad():
        trainee.backbone.final_layer.linear.weight.mul_(factor)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("options", [{}, {"log_every": 1000, "max_bad_steps": 500}, {"log_every": 1}])
def test_a_run_that_never_counts_ends_within_20_steps(
    dtype: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "Guard", LateGuard)
    trainee, how = ready(tmp_path, steps=60, dtype=dtype, **options)
    overflow(trainee, float("inf"))
    error, steps = ended(trainee, how)
    assert steps == 20
    told = "none of the 16 steps counted: the loss or its gradients were never all finite (--dtype "
    assert f"{told}{dtype}" in str(error)
    assert ("(--dtype fp16, where all beyond 65,504 overflows)" in str(error)) == (dtype == "fp16")


def test_steps_that_counted_before_leave_the_patience_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee, how = ready(tmp_path, steps=40, max_bad_steps=20)
    denoise = Objective.denoise

    def late(self: Objective, inputs: Any, *rest: Any) -> Any:
        loss, terms = denoise(self, inputs, *rest)
        return (loss * float("nan"), terms) if inputs.batch.step >= 5 else (loss, terms)

    monkeypatch.setattr(Objective, "denoise", late)
    error, steps = ended(trainee, how)
    assert steps == 5 + 21
    assert "for 21 steps in a row (--dtype fp32)" in str(error)


@pytest.mark.parametrize(
    ("dtype", "factor", "hint"), [("fp16", 1e6, "--dtype bf16 or fp32"), ("bf16", 1e38, "--dtype fp32")]
)
def test_a_backbone_that_overflows_is_told_from_a_patch(dtype: str, factor: float, hint: str, tmp_path: Path) -> None:
    trainee, how = ready(tmp_path, steps=30, dtype=dtype)
    overflow(trainee, factor)
    error, _ = ended(trainee, how)
    assert f"the frozen backbone itself, without the patch, is not finite under --dtype {dtype}" in error.message
    assert ("it has values beyond 65,504, where fp16 ends" in error.message) == (dtype == "fp16")
    assert error.hint == f"It is not the patch that diverged. Start anew with {hint}."


@pytest.mark.parametrize("method", ["dmp", "lora", "difffit"])
def test_a_weight_that_is_not_finite_is_named(method: str, tmp_path: Path) -> None:
    trainee, how = ready(tmp_path, steps=30, method=method)
    with torch.no_grad():
        trainee.backbone.final_layer.linear.weight[0, 0] = float("nan")
    error, _ = ended(trainee, how)
    assert "the frozen backbone's weight final_layer.linear.weight is not finite" in error.message


def test_images_that_are_not_finite_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainee, how = ready(tmp_path, steps=30)
    prepare = loops.TrainingLoop.prepare

    def broken(self: loops.TrainingLoop, batch: Any) -> Any:
        return prepare(self, replace(batch, values=torch.full_like(batch.values, float("nan"), dtype=torch.float32)))

    monkeypatch.setattr(loops.TrainingLoop, "prepare", broken)
    assert "the images or their latents are not finite" in ended(trainee, how)[0].message


@pytest.mark.parametrize("method", ["dmp", "full"])
def test_what_is_trained_and_diverges_is_said_to(method: str, tmp_path: Path) -> None:
    trainee, how = ready(tmp_path, steps=30, method=method)
    with torch.no_grad():
        next(iter(trainee.learnt.values())).fill_(float("inf"))
    error, _ = ended(trainee, how)
    assert error.message.endswith("never all finite (--dtype fp32)")
    assert (error.hint or "").startswith("Lower --lr and --gate-lr, or add --warmup.")
