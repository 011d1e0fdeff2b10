"""dmp_cli.training.trainer from Python: what a run writes between its steps, and what ends it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.config import TrainConfig
from dmp_cli.data.folder import FolderImages, find_images
from dmp_cli.data.shuffling import Order
from dmp_cli.errors import DataError, DMPError, StoppedError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.runtime.signals import StopRequest
from dmp_cli.training.checkpoint import list_states
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import Trainee, prepare
from dmp_cli.training.run_folder import RunFolder
from dmp_cli.training.trainer import train
from tests.builders import tiny_dit, write_images


def ready(tmp_path: Path, name: str = "run", **options: Any) -> tuple[Trainee, dict[str, Any]]:
    data = tmp_path / "images"
    if not data.exists():
        write_images(data)
    settings: dict[str, Any] = {"steps": 6, "batch_size": 4, "lr": 0.01, "sample_every": 0, **options}
    config = TrainConfig(data=data, **settings)
    backbone = tiny_dit()
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3))
    run = RunFolder(tmp_path / name)
    run.path.mkdir(exist_ok=True)
    return trainee, {"images": find_images(data), "config": config, "run": run}


def values_of(trainee: Trainee) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainee.learnt.items()}


@pytest.fixture(autouse=True)
def _nothing_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone made in code has no record, so no patch file can be written. Checkpoints can."""
    monkeypatch.setattr(Trainee, "write", lambda *arguments: None)


def test_a_frozen_backbone_that_is_changed_ends_the_run(tmp_path: Path) -> None:
    trainee, how = ready(tmp_path, save_every=2)

    def meddle() -> None:
        for event in train(trainee, **how):
            if event.step == 3:
                with torch.no_grad():
                    trainee.backbone.blocks[0].attn.qkv.weight.mul_(1.001)

    with pytest.raises(DMPError, match="weights were changed while the patch was trained"):
        meddle()
    assert [path.name for path in list_states(tmp_path / "run" / "checkpoints")] == ["step-00000002"]


def test_a_signal_in_the_middle_of_accumulation_ends_after_the_whole_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, how = ready(tmp_path, "straight", micro_batch_size=1)
    list(train(straight, **how))
    trainee, how = ready(tmp_path, micro_batch_size=1)
    denoise, calls = TrainingLoop._denoise, []

    def interrupted(loop: TrainingLoop, *arguments: Any) -> Any:
        calls.append(loop.step)
        if len(calls) == 4 * 2 + 2:  # the second of the four micro-batches of the third step
            os.kill(os.getpid(), signal.SIGTERM)
        return denoise(loop, *arguments)

    monkeypatch.setattr(TrainingLoop, "_denoise", interrupted)
    with StopRequest() as request, pytest.raises(StoppedError, match="stopped after step 3"):
        list(train(trainee, **how, stop=lambda: request.number))
    assert len(calls) == 12
    resumed, how = ready(tmp_path, micro_batch_size=1)
    state = how["run"].load_state(warn=print)
    assert state.step == 3
    list(train(resumed, **how, state=state))
    assert all(torch.equal(value, values_of(straight)[name]) for name, value in values_of(resumed).items())


def test_a_log_line_says_what_the_run_costs(tmp_path: Path) -> None:
    trainee, how = ready(tmp_path, log_every=2)
    lines = [event.line for event in train(trainee, **how) if event.line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert 0 <= line["data_wait"] <= 1
        assert line["images_per_second"] > 0
        assert line["memory_gib"] > 0.05
        assert line["skipped_steps"] == 0
    assert lines[-1]["seconds_left"] == 0


def test_closing_early_leaves_no_thread_running(tmp_path: Path) -> None:
    import threading

    before = threading.active_count()
    trainee, how = ready(tmp_path)
    steps = train(trainee, **how)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_when_reading_fails_what_was_learnt_is_saved(tmp_path: Path) -> None:
    trainee, how = ready(tmp_path, steps=50, max_bad=0)
    config, seen = how["config"], []

    def train_all() -> None:
        for event in train(trainee, **how):
            seen.append(event.step)

    source = how["images"]
    late = Order(len(source), batch_size=4, seed=config.seed).places(1)[0][1]  # first met in the second step
    target = Path(source.name(late))
    original = FolderImages.read

    def failing(self: FolderImages, index: int) -> bytes:
        if self.name(index) == str(target):
            target.write_bytes(b"gone")
        return original(self, index)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FolderImages, "read", failing)
        with pytest.raises(DataError, match="at most 0 may be bad"):
            train_all()
    saved = [path.name for path in list_states(tmp_path / "run" / "checkpoints")]
    assert seen == [1]
    assert saved == ["step-00000001"]
