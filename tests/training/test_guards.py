"""The guard and the loop: skipped steps, runs that are ended, and steps that do not wait for the device."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dmp_cli.config import PatchConfig, TrainConfig
from dmp_cli.data.batches import Batch
from dmp_cli.errors import DivergedError, DMPError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.training.guards import Guard
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import prepare
from tests.builders import tiny_dit


def loop_of(*, patch: PatchConfig | None = None, **options: Any) -> TrainingLoop:
    settings: dict[str, Any] = {"batch_size": 4, "steps": 50, "lr": 0.01, **options}
    config = TrainConfig(data=Path("unused"), **settings)
    trainee = prepare(config, backbone=tiny_dit(), codec=PixelCodec(3), patch_config=patch)
    return TrainingLoop(trainee, config)


def batch(step: int, *, broken: bool = False) -> Batch:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(step)) * 2 - 1
    if broken:
        images[2, 0, 3, 3] = float("nan")
    return Batch(step=step, values=images, labels=torch.arange(4), indices=torch.arange(4), bad=[])


def values_of(loop: TrainingLoop) -> dict[str, torch.Tensor]:
    state = loop.state()
    parts = {"learnt": state.learnt, "helpers": state.helpers, "optimizer": state.optimizer}
    return {f"{part}.{name}": value.clone() for part, found in parts.items() for name, value in found.items()}


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(dtype: str) -> None:
    loop = loop_of(dtype=dtype, ema=0.9)
    loop.advance(loop.prepare(batch(0)))
    before = values_of(loop)
    terms = loop.advance(loop.prepare(batch(1, broken=True)))
    assert loop.guard.check() is None
    assert float(terms["skipped"]) == 1
    after = values_of(loop)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert loop.step == 2
    terms = loop.advance(loop.prepare(batch(2)))
    assert float(terms["skipped"]) == 0
    assert all(value.isfinite().all() for value in values_of(loop).values())
    assert any(not torch.equal(value, before[name]) for name, value in values_of(loop).items())
    assert all(value.isfinite().all() for value in loop.ema.values())


def test_too_many_in_a_row_end_the_run() -> None:
    loop = loop_of(max_bad_steps=2)
    for step, broken in enumerate([True, True, False, True, True]):
        loop.advance(loop.prepare(batch(step, broken=broken)))
        assert loop.guard.check() is None
    loop.advance(loop.prepare(batch(5, broken=True)))
    with pytest.raises(DivergedError, match=r"step 6: .* not all finite, for 3 steps in a row"):
        loop.guard.check()


@pytest.mark.parametrize("broken", [[True, True], [True, False], [False, True]])
def test_a_run_of_which_no_step_counted_is_an_error(broken: list[bool]) -> None:
    loop = loop_of(steps=2)
    for step, bad in enumerate(broken):
        loop.advance(loop.prepare(batch(step, broken=bad)))
        loop.guard.check()
    if all(broken):
        with pytest.raises(DivergedError, match="none of the 2 steps counted"):
            loop.guard.finish()
    else:
        loop.guard.finish()


def test_gradients_that_never_come_end_the_run_after_warm_up() -> None:
    loop = loop_of(warmup=150, steps=200)  # the balance losses give its gate gradients in every step
    layer = loop.trainee.backbone.final_layer.linear  # zero, as in a backbone that was never trained
    layer.weight.data.zero_()
    for step in range(150):
        loop.advance(loop.prepare(batch(step)))
        assert loop.guard.check() is None
    loop.advance(loop.prepare(batch(150)))
    with pytest.raises(DMPError, match="step 151: no gradient has reached the trainable parameters for 100 steps"):
        loop.guard.check()


def test_a_gradient_now_and_then_is_enough() -> None:
    guard = Guard(TrainConfig(data=Path("unused")), torch.device("cpu"))
    for step in range(1, 400):
        largest = torch.tensor(float(step % 99 == 0))
        guard.count(finite=torch.ones(()), largest=largest, signals=torch.zeros(3), step=step)
        assert guard.check() is None


@pytest.mark.parametrize(
    ("met", "number"),
    [
        ((0, 0, 0), None),
        ((0, 1, 0), signal.SIGINT),
        ((0, 0, 2), signal.SIGTERM),
        ((0, 1, 1), signal.SIGTERM),
        ((2, 0, 0), signal.SIGHUP),
        ((2, 1, 0), signal.SIGINT),
    ],
)
def test_signals_of_any_process_are_told(met: tuple[int, int, int], number: int | None) -> None:
    guard = Guard(TrainConfig(data=Path("unused")), torch.device("cpu"))
    signals = torch.tensor([float(count) for count in met])
    guard.count(finite=torch.ones(()), largest=torch.ones(()), signals=signals, step=1)
    assert guard.check() == number
    assert guard.check() is None  # nothing new


class HostReads(TorchDispatchMode):
    """Counts the operations that copy a value to the host, and so would wait for a GPU."""

    names: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(operation)
        if any(part in name for part in ("_local_scalar_dense", "nonzero", "is_nonzero", "unique", "masked_select")):
            self.names[name] += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("options", "patch"),
    [
        ({}, PatchConfig()),
        ({"ema": 0.9, "micro_batch_size": 2, "dtype": "bf16"}, PatchConfig(gate_input="conditioning")),
        ({"gate_noise": True}, PatchConfig(selection="hard")),
        ({"method": "full"}, None),
    ],
)
def test_no_step_reads_a_value_from_the_device(options: dict[str, Any], patch: PatchConfig | None) -> None:
    loop = loop_of(patch=patch, **options)
    loop.advance(loop.prepare(batch(0)))
    inputs = loop.prepare(batch(1))
    with HostReads() as reads:
        loop.advance(inputs)
    assert not reads.names, reads.names
