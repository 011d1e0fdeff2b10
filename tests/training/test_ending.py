"""What a signal in training is answered with at once: the step that is then saved, its size, and what would be lost."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dmp_cli.data.folder import FolderImages
from dmp_cli.errors import EndedAtOnce, StoppedError
from dmp_cli.runtime import World
from dmp_cli.runtime.signals import StopRequest
from dmp_cli.training.checkpoint import list_states
from dmp_cli.training.ending import Ending, state_size
from dmp_cli.training.guards import Guard
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import Trainee
from dmp_cli.training.run_folder import RunFolder
from dmp_cli.training.trainer import train

from .test_trainer import ready, values_of


@pytest.fixture(autouse=True)
def _nothing_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone made in code has no record, so no patch file can be written. Checkpoints can."""
    monkeypatch.setattr(Trainee, "write", lambda *arguments: None)


def strike(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, call: int, times: int = 1) -> None:
    """Send Ctrl-C ``times`` times at the ``call``-th call (1-based) of a method, before it runs."""
    method: Callable[..., Any] = getattr(owner, name)
    calls = []

    def struck(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return method(*arguments, **named)

    monkeypatch.setattr(owner, name, struck)


def stop_in_training(how: dict[str, Any], trainee: Trainee, error: type[BaseException] = StoppedError) -> None:
    with StopRequest(speaks=True) as request, pytest.raises(error):
        list(train(trainee, **how, stop=lambda: request.number, foretell=request.foretell))


def saved_steps(tmp_path: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in list_states(tmp_path / "run" / "checkpoints")]


# Steps 2, 4 and 6 are saved. A signal during step 3 ends the run after it; one while step 4 is being saved is seen
# after step 5. Before the first step nothing is saved yet.
@pytest.mark.parametrize(
    ("owner", "name", "call", "step", "lost"),
    [
        (FolderImages, "read", 1, 1, "step 1"),
        (TrainingLoop, "advance", 2, 2, "all 2 steps"),
        (TrainingLoop, "advance", 3, 3, "step 3"),
        (Guard, "check", 4, 4, "the 2 steps since step 2"),
        (RunFolder, "save", 2, 5, "the 3 steps since step 2"),
    ],
)
def test_the_step_that_is_named_is_saved(
    owner: Any,
    name: str,
    call: int,
    step: int,
    lost: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainee, how = ready(tmp_path, save_every=2)
    strike(monkeypatch, owner, name, call=call)
    stop_in_training(how, trainee)
    (line,) = capsys.readouterr().err.splitlines()
    size = r"[\d.]+ kB"
    expected = rf"Ctrl-C: saving step {step} \({size}\); press again to stop without saving, which loses {lost}"
    assert re.fullmatch(expected, line)
    assert saved_steps(tmp_path)[-1] == step


def test_a_continued_run_counts_from_the_checkpoint_it_went_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainee, how = ready(tmp_path, steps=3)
    list(train(trainee, **how))
    trainee, how = ready(tmp_path)
    strike(monkeypatch, TrainingLoop, "advance", call=2)
    state = how["run"].load_state(warn=print)
    stop_in_training({**how, "state": state}, trainee)
    assert "saving step 5 " in (said := capsys.readouterr().err)
    assert "the 2 steps since step 3" in said


def test_a_signal_while_the_last_step_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainee, how = ready(tmp_path)
    strike(monkeypatch, RunFolder, "save", call=1)
    with StopRequest(speaks=True) as request:
        list(train(trainee, **how, stop=lambda: request.number, foretell=request.foretell))
    assert "saving step 6 " in capsys.readouterr().err
    assert saved_steps(tmp_path) == [6]


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [(TrainingLoop, "_denoise", 11), (TrainingLoop, "_average", 6), (Guard, "check", 6), (RunFolder, "save", 3)],
)
def test_a_second_one_saves_nothing_and_the_run_goes_on_as_if_undisturbed(
    owner: Any, name: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how_long: dict[str, Any] = {"steps": 8, "micro_batch_size": 2, "ema": 0.5, "save_every": 2}
    straight, how = ready(tmp_path, "straight", **how_long)
    list(train(straight, **how))
    trainee, how = ready(tmp_path, **how_long)
    with monkeypatch.context() as patched:
        strike(patched, owner, name, call=call, times=2)
        stop_in_training(how, trainee, EndedAtOnce)
    assert saved_steps(tmp_path) == [2, 4]
    trainee, how = ready(tmp_path, **how_long)
    state = how["run"].load_state(warn=print)
    assert state.step == 4
    list(train(trainee, **how, state=state))
    assert all(torch.equal(value, values_of(straight)[name]) for name, value in values_of(trainee).items())


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"method": "full"}, {"method": "prompt-tuning"}])
def test_the_size_is_that_of_the_tensors_in_the_checkpoint(options: dict[str, Any], tmp_path: Path) -> None:
    trainee, how = ready(tmp_path, steps=2, **options)
    foreseen = state_size(TrainingLoop(trainee, how["config"]))  # before the optimizer holds anything
    list(train(trainee, **how))
    (folder,) = list_states(tmp_path / "run" / "checkpoints")
    tensors = [tensor for file in folder.glob("*.safetensors") for tensor in load_file(file).values()]
    assert foreseen == sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_processes_that_tell_each_other_late_name_the_later_step(tmp_path: Path) -> None:
    trainee, how = ready(tmp_path, steps=50)
    loop = TrainingLoop(trainee, how["config"], world=World(rank=0, size=2))
    loop.guard.lag = 8  # as on a GPU
    ending = Ending(loop, saved=None)
    assert "saving step 9 " in ending.foresee().now  # told in step 1, read 8 steps later
    ending.pass_by()  # step 1 has asked already, so it is told in step 2
    assert "saving step 10 " in ending.foresee().now
    loop.step = 45
    ending.pass_by()
    assert "saving step 50 " in ending.foresee().now


def test_sizes_are_written_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainee, how = ready(tmp_path)
    loop = TrainingLoop(trainee, how["config"])
    for size, text in ((5_400, "5.4 kB"), (400_300_000, "400 MB"), (2_650_000_000, "2.65 GB")):
        monkeypatch.setattr("dmp_cli.training.ending.state_size", lambda loop, size=size: size)
        assert f"({text})" in Ending(loop, saved=None).foresee().now
