"""Whole commands for every family: killed in training and in sampling, typed again, the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dmp_cli.backbones.text import TextEncoder
from dmp_cli.backbones.text_pipeline import PipelineEncoders
from dmp_cli.cli import app
from dmp_cli.sampling.forward import GuidedForward
from dmp_cli.training.loop import TrainingLoop
from tests.backbones.pipelines import write_captioned
from tests.builders import write_images

from .cases import Case
from .shown import shows


def typed(*arguments: Any) -> str:
    """What a command says."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"{result.stdout}{result.stderr}{result.exception!r}"
    return result.stdout


def killed(owner: Any, name: str, call: int, *arguments: Any) -> None:
    """Type a command in a process that dies, with nothing put in order, at the ``call``-th call of a function."""
    process = os.fork()
    if process == 0:
        method: Callable[..., Any] = getattr(owner, name)
        calls: list[int] = []

        def dying(*given: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == call:
                os._exit(9)
            return method(*given, **named)

        setattr(owner, name, dying)
        CliRunner().invoke(app, [str(argument) for argument in arguments])
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 9


@pytest.fixture
def backbone_options(case: Case, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.chdir(tmp_path)
    side = case.pixels
    if case.core is None:
        write_images(tmp_path / "images", size=side)
    else:
        words = case.texts[0], "a blue bird", case.texts[1]
        write_captioned(tmp_path / "images", count=6, size=side, words=words)
    return ["--backbone", place, *case.options, *([] if case.side is None else ["--image-size", side])]


def pictures(folder: Path) -> dict[str, bytes]:
    """The pictures in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.slow
@shows("killed", lambda case: "same bytes")
def test_killed_and_typed_again(case: Case, backbone_options: list[Any], tmp_path: Path) -> None:
    few = ["--data", "images", "--batch-size", 2, "--lr", 0.01, "--sample-every", 0, "--save-every", 2, "-q"]
    train = ["train", *backbone_options, *few, "--steps", 5]
    typed(*train, "-o", "straight")
    killed(TrainingLoop, "_apply", 4, *train, "-o", "killed")
    typed("train", "--resume", "-o", "killed", "-q")
    assert Path("killed/patch.safetensors").read_bytes() == Path("straight/patch.safetensors").read_bytes()
    prompt = ["--classes", "0,1"] if case.core is None else ["--prompt", "a red fox"]
    draw = ["sample", "--patch", "straight/patch.safetensors", *prompt, "-n", 3, "--batch-size", 2, "--steps", 2, "-q"]
    typed(*draw, "-o", "whole")
    killed(GuidedForward, "predict", 3, *draw, "-o", "again")
    typed(*draw, "-o", "again")
    assert pictures(Path("again")) == pictures(Path("whole"))
    assert pictures(Path("whole")).keys() == {"000000.png", "000001.png", "000002.png", "grid.png"}


@pytest.mark.slow
@shows("measured", lambda case: "gates")
@shows("measured", lambda case: "held-out loss")
@shows("measured", lambda case: "table")
def test_gates_losses_and_tables(case: Case, backbone_options: list[Any], tmp_path: Path) -> None:
    few = ["--data", "images", "--batch-size", 2, "--lr", 0.01, "--sample-every", 0, "-q"]
    typed("train", *backbone_options, *few, "--steps", 2, "-o", "run")
    patch = ["--patch", "run/patch.safetensors"]
    typed("inspect-gates", *patch, "-o", "gates", "-q")
    assert (tmp_path / "gates").exists()
    typed("eval", "--loss", *patch, "--val-data", "images", "--val-draws", 40, "-o", "loss", "-q")
    assert (tmp_path / "loss").exists()
    sampler = case.samplers[0]
    typed("patch", "--export", "run/patch.safetensors", "--sampler", sampler, "--steps", 4, "-o", "table.safetensors")
    assert (tmp_path / "table.safetensors").exists()


@shows("text store", lambda case: "killed, same bytes" if case.reads_text else "no text")
@pytest.mark.slow
def test_a_text_store_is_filled_once(
    case: Case, backbone_options: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--data", "images", "--batch-size", 2, "--lr", 0.01, "--sample-every", 0, "--steps", 2, "-q"]
    train = ["train", *backbone_options, *few]
    if not case.reads_text:
        result = CliRunner().invoke(app, [str(one) for one in (*train, "--text-store", "-o", "none")])
        assert result.exit_code == 1
        assert "--text-store is for a backbone that reads text" in result.stderr
        return
    owner = TextEncoder if case.name in ("SD 1.5", "PixArt-alpha", "PixArt-Sigma") else PipelineEncoders
    typed(*train, "--text-store", "--text-store-dir", "whole", "-o", "straight")
    killed(owner, "encode", 3, *train, "--text-store", "--text-store-dir", "part", "-o", "killed")
    typed(*train, "--text-store", "--text-store-dir", "part", "-o", "killed")
    assert Path("killed/patch.safetensors").read_bytes() == Path("straight/patch.safetensors").read_bytes()
    asked: list[Any] = []
    monkeypatch.setattr(owner, "encode", lambda self, captions: asked.append(captions))
    typed(*train, "--text-store", "--text-store-dir", "part", "-o", "again")
    assert asked == []  # a filled store needs no encoder
    assert Path("again/patch.safetensors").read_bytes() == Path("straight/patch.safetensors").read_bytes()
