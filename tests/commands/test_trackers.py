"""``dmp train --track``: what each tracker is told, and that none of them ends a run."""

from __future__ import annotations

import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.commands.train import trackers as tracking
from dmp_cli.commands.train.tracker_kinds import KINDS, NewRun, check_trackers, flat
from dmp_cli.commands.train.trackers import tracked
from dmp_cli.errors import ConfigError
from tests.commands.conftest import Run, parse

Calls = list[tuple[str, Any]]


def fake_logging(name: str, calls: Calls) -> types.ModuleType:
    """A module as wandb and trackio are used here; it prints, as they do."""

    class Started:
        def log(self, values: dict[str, Any], *, step: int) -> None:
            calls.append(("log", (step, values)))

        def finish(self) -> None:
            calls.append(("finish", None))

    def init(**told: Any) -> Started:
        print(f"{name} greets")
        calls.append(("init", told))
        return Started()

    module: Any = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)  # other libraries look whether it is there
    module.init, module.Histogram, module.Image = init, lambda array: ("histogram", array), lambda it: ("image", it)
    module.Settings = dict
    return module


def fake_mlflow(calls: Calls) -> types.ModuleType:
    module: Any = types.ModuleType("mlflow")
    module.__spec__ = ModuleSpec("mlflow", None)

    def start_run(**told: Any) -> Any:
        calls.append(("start_run", told))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=told["run_id"] or "r1"))

    for name in ("set_experiment", "log_params", "log_metrics", "log_dict", "log_image", "end_run"):
        setattr(module, name, lambda *told, name=name, **more: calls.append((name, (*told, more))))
    module.start_run = start_run
    return module


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Calls]:
    """What was said to each of the three libraries, none of which needs to be installed."""
    said: dict[str, Calls] = {name: [] for name in ("wandb", "trackio", "mlflow")}
    monkeypatch.setitem(sys.modules, "wandb", fake_logging("wandb", said["wandb"]))
    monkeypatch.setitem(sys.modules, "trackio", fake_logging("trackio", said["trackio"]))
    monkeypatch.setitem(sys.modules, "mlflow", fake_mlflow(said["mlflow"]))
    for name in ("WANDB_PROJECT", "WANDB_NAME", "TRACKIO_PROJECT", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return said


def test_all_are_told_the_same_and_a_run_goes_on_there(
    run: Run, backbone: list[str], images: Path, tmp_path: Path, calls: dict[str, Calls]
) -> None:
    pytest.importorskip("tensorboard")
    options = [*backbone, "--batch-size", 2, "--log-every", 1, "--sample-every", 2, "-o", "out", "--json"]
    result = run("train", *options, "--data", images, "--steps", 2, "--track", "wandb,trackio", "--track", "mlflow",
                 "--tensorboard")  # fmt: skip
    assert parse(result)["steps"] == 2  # nothing of theirs is on stdout
    assert "wandb greets" in result.stderr
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    for name in ("wandb", "trackio"):
        (begin, told), *logged, last = calls[name]
        assert begin == "init"
        assert last == ("finish", None)
        assert told["config"]["train"]["steps"] == 2
        assert (told["project"], told["resume"]) == ("dmp", "allow")
        entries = [entry for _, entry in logged]
        assert [(step, values["loss"]) for step, values in entries if "loss" in values] == [
            (1, pytest.approx(losses[0])), (2, pytest.approx(losses[1])),
        ]  # fmt: skip
        spread = [values for _, values in entries if "gates/all" in values]
        assert len(spread) == 2
        assert set(spread[0]) == {"gates/all", *(f"gates/block-{block:02d}" for block in range(3))}
        kind, weights = spread[0]["gates/block-01"]
        assert kind == "histogram"
        assert weights.mean() == pytest.approx(1, abs=1e-4)  # times N: 1 is the uniform share
        ((step, (_, picture)),) = [(step, values["samples"]) for step, values in entries if "samples" in values]
        assert (step, picture.mode) == (2, "RGB")
    said = dict(calls["mlflow"])
    told = {key: value for name, told in calls["mlflow"] if name == "log_params" for key, value in told[0].items()}
    assert told["train.steps"] == "2"
    assert [told[-1]["step"] for name, told in calls["mlflow"] if name == "log_metrics"] == [1, 2]
    assert said["log_image"][1] == "samples/step-00000002.png"
    assert calls["mlflow"][-1][0] == "end_run"
    _check_events(tmp_path / "out" / "tensorboard", losses)
    first = {name: calls[name][0][1] for name in ("wandb", "trackio")}
    for said in calls.values():
        said.clear()
    run("train", *options, "--resume", "--steps", 3, "--track", "wandb,trackio,mlflow")
    assert calls["wandb"][0][1]["id"] == first["wandb"]["id"]
    assert calls["trackio"][0][1]["name"] == first["trackio"]["name"]
    assert dict(calls["mlflow"])["start_run"]["run_id"] == "r1"
    assert "log_params" not in dict(calls["mlflow"])  # which cannot be changed


def _check_events(folder: Path, losses: list[float]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"histograms": 0, "images": 0})
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)
    assert [event.step for event in events.Histograms("gates/all")] == [1, 2]
    assert [event.step for event in events.Images("samples")] == [2]
    assert "config/text_summary" in events.Tags()["tensors"]


def test_one_that_is_not_there_is_said_before_the_run(
    run: Run, backbone: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    options = [*backbone, "--data", images, "--steps", 1, "--batch-size", 2, "-o", "out"]
    refused = run("train", *options, "--track", "wandb", code=1).stderr
    assert "--track wandb needs the library wandb, which is not installed" in refused
    assert "pip install wandb" in refused
    assert not (tmp_path / "out").exists()
    assert "--track" in run("train", *options, "--track", "comet", code=1).stderr


@pytest.mark.parametrize("fails", ["begin", "scalars", "image", "finish"])
def test_one_that_fails_is_left_out(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: Calls = []

    class Failing:
        def __getattr__(self, name: str) -> Any:
            def call(*told: Any) -> None:
                heard.append((name, told))
                if name == fails:
                    raise SystemExit("no key\nat all")  # what ends the thread must not end the program

            return call

    class Sound(Failing):
        def __getattr__(self, name: str) -> Any:
            return lambda *told: heard.append((f"sound {name}", told))

    monkeypatch.setitem(KINDS, "wandb", Failing)
    monkeypatch.setitem(KINDS, "trackio", Sound)
    warned: list[str] = []
    with tracked(["wandb", "trackio"], tmp_path, config={}, goes_on=False, warn=warned.append) as trackers:
        for step in range(3):
            trackers.scalars({"loss": 1.0, "what": "a word", "is": True}, step)
            trackers.image("samples", b"", step)
            trackers.histograms({}, step)
    assert warned == ["wandb is told nothing any more, and the run goes on: SystemExit: no key"]
    names = [name for name, _ in heard]
    assert names.count(fails) == 1
    assert names.count("sound scalars") == 3
    assert [name for name in names if name.startswith("sound")][-1] == "sound finish"
    assert ("sound scalars", ({"loss": 1.0}, 0)) in heard


def test_one_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    free = threading.Event()

    class Stuck:
        def begin(self, new: NewRun) -> None:
            free.wait(30)

        def __getattr__(self, name: str) -> Any:
            return lambda *told: None

    monkeypatch.setitem(KINDS, "mlflow", Stuck)
    monkeypatch.setattr(tracking, "_AT_THE_END", 0.01)
    monkeypatch.setattr(tracking, "_MOST_WAITING", 5)
    warned: list[str] = []
    with tracked(["mlflow"], tmp_path, config={}, goes_on=False, warn=warned.append) as trackers:
        for step in range(10):
            trackers.scalars({"loss": 1.0}, step)
    free.set()
    assert warned == ["mlflow is told nothing any more, and the run goes on: it is 5 calls behind"]


def test_small_things(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flat({"a": {"b": 1, "c": {"d": None}}, "e": [1]}) == {"a.b": 1, "a.c.d": None, "e": [1]}
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match="trackio"):
        check_trackers(["trackio"])
