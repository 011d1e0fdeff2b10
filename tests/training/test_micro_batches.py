"""A step that does not fit: what would is named, or is taken at once, with the gradients of the same micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.config import TrainConfig, build
from dmp_cli.data import LiveReader, read_batches
from dmp_cli.errors import ConfigError, DMPError
from dmp_cli.runtime import World
from dmp_cli.training import micro_batches
from dmp_cli.training.checkpoint import list_states
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import Trainee
from dmp_cli.training.trainer import train

from .test_trainer import ready, values_of

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    MemoryError(),
]


@pytest.fixture(autouse=True)
def _nothing_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone made in code has no record, so no patch file can be written. Checkpoints can."""
    monkeypatch.setattr(Trainee, "write", lambda *arguments: None)


def room_for(monkeypatch: pytest.MonkeyPatch, count: int, *, error: BaseException = ERRORS[0], since: int = 0) -> None:
    """Let memory run out for more than ``count`` images at once, after the backward pass, from step ``since`` on."""
    denoise = TrainingLoop._denoise

    def limited(self: TrainingLoop, inputs: Any, labels: Any, part: slice) -> Any:
        terms = denoise(self, inputs, labels, part)  # so the gradients of the failed micro-batch are there
        if part.stop - part.start > count and self.step >= since:
            raise error
        return terms

    monkeypatch.setattr(TrainingLoop, "_denoise", limited)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("dtype", "size", "fits"), [("fp32", 8, 2), ("fp16", 4, 1), ("bf16", 8, 4)])
def test_halving_gives_the_values_of_that_micro_batch(
    error: Exception, dtype: str, size: int, fits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same: dict[str, Any] = {"batch_size": 8, "dtype": dtype, "ema": 0.5, "steps": 3}
    straight, how = ready(tmp_path, "straight", **same, micro_batch_size=fits)
    list(train(straight, **how))
    trainee, how = ready(tmp_path, **same, micro_batch_size=size, auto_micro_batch=True)
    with monkeypatch.context() as patched:
        room_for(patched, fits, error=error)
        events = list(train(trainee, **how))
    assert all(torch.equal(value, values_of(straight)[name]) for name, value in values_of(trainee).items())
    expected = []
    while size > fits:
        told = f"out of memory with {size} images at once; going on with micro-batches of {size // 2}"
        expected, size = [*expected, told], size // 2
    assert [event.remarks for event in events] == [expected, [], []]


def test_a_batch_that_halves_to_no_whole_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainee, how = ready(tmp_path, batch_size=6, steps=1, auto_micro_batch=True)
    room_for(monkeypatch, 2)
    (event,) = train(trainee, **how)
    assert [remark.split()[-1] for remark in event.remarks] == ["3", "1"]


@pytest.mark.parametrize(("auto", "count", "images"), [(False, 8, "8 images"), (True, 0, "1 image")])
def test_where_it_may_not_or_cannot_go_smaller_the_steps_before_are_saved(
    auto: bool, count: int, images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee, how = ready(tmp_path, batch_size=8, auto_micro_batch=auto)
    room_for(monkeypatch, 4 if count else 0, since=2)
    with pytest.raises(DMPError, match=f"out of memory in step 3, with {images} on the device at once") as caught:
        list(train(trainee, **how))
    expected = "--resume --micro-batch-size 4, or with --resume --auto-micro-batch; --gradient-checkpointing needs less"
    assert (expected if count else "--resume --gradient-checkpointing, or start anew with --dtype bf16") in str(
        caught.value
    )
    assert [path.name for path in list_states(tmp_path / "run" / "checkpoints")] == ["step-00000002"]


@pytest.mark.parametrize(
    ("free", "named"),
    [
        (10_000, 32),  # room for more than half of the batch, which is then the largest divisor below it
        (1_000, 16),  # (0.9 * 1000 - 50) / 40 = 21 images
        (300, 4),  # (0.9 * 300 - 50) / 40 = 5
        (50, 1),  # not even one: the least there is
    ],
)
def test_what_fits_is_computed_from_the_measured_peaks(
    free: int, named: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee, how = ready(tmp_path, batch_size=64)
    room_for(monkeypatch, 2)
    peaks = iter([50 + 40, 50 + 2 * 40])  # 50 for the whole, 40 for each image

    def measured(device: torch.device, call: Any) -> int:
        call()
        return next(peaks)

    monkeypatch.setattr(micro_batches, "measure_peak", measured)
    monkeypatch.setattr(micro_batches, "free_memory", lambda device: free)
    with pytest.raises(DMPError, match=f"--micro-batch-size {named},"):
        list(train(trainee, **how))
    assert not list_states(tmp_path / "run" / "checkpoints")  # nothing was learnt yet


def test_memory_that_runs_out_in_the_optimizer_saves_no_half_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee, how = ready(tmp_path, auto_micro_batch=True)
    step = torch.optim.AdamW.step

    def failing(self: Any, *arguments: Any, **named: Any) -> Any:
        step(self, *arguments, **named)
        raise ERRORS[0]

    monkeypatch.setattr(torch.optim.AdamW, "step", failing)
    with pytest.raises(torch.OutOfMemoryError):
        list(train(trainee, **how))
    assert not list_states(tmp_path / "run" / "checkpoints")


def test_a_process_of_several_halves_without_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_size: dict[int, list[torch.Tensor | None]] = {}
    for size in (4, 2):
        trainee, how = ready(tmp_path, batch_size=8, micro_batch_size=size, auto_micro_batch=True)
        loop = TrainingLoop(trainee, how["config"], world=World(rank=1, size=2))  # not connected: it cannot communicate
        source = LiveReader(how["images"], image_size=8, channels=3)
        span: dict[str, Any] = {"start_step": 0, "stop_step": 1, "share": loop.places, "workers": 0, "max_bad": 0}
        (batch,) = read_batches(how["images"], source, batch_size=8, seed=0, flip=False, **span)
        inputs = loop.prepare(batch)
        with monkeypatch.context() as patched:
            room_for(patched, 2)
            loop._accumulate(inputs, loop.objective.labels(inputs.batch))
        assert loop.micro_batches.size == 2
        of_size[size] = [parameter.grad for parameter in loop.parameters]
    halved, named = of_size[4], of_size[2]
    assert any(gradient is not None and bool(gradient.any()) for gradient in named)
    for one, other in zip(halved, named, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_spread_weights_and_halving_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--auto-micro-batch and --shard-backbone"):
        build(TrainConfig, data=tmp_path, auto_micro_batch=True, shard_backbone=True)
