"""Ctrl-C in every command: one sentence and exit code 130; training says what it saves, and goes on later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmp_cli.data import decoding
from dmp_cli.evaluation.digit_classifier import DigitClassifier
from dmp_cli.latents import encoding
from dmp_cli.patching.patched import PatchedBackbone
from dmp_cli.sampling import forward
from dmp_cli.training.loop import TrainingLoop
from tests.training.test_ending import strike

from .conftest import Run, files_in

ENDED = "stopped by Ctrl-C; what is written is whole, and the same command goes on from it\n"


pytestmark = pytest.mark.usefixtures("own_handlers")


def test_training_says_at_once_what_it_saves(
    run: Run, backbone: list[str], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["train", *backbone, "--data", images, "--batch-size", 4, "--save-every", 2, "--sample-every", 0, "-q"]
    run(*how, "--steps", 6, "-o", "straight")
    with monkeypatch.context() as patched:
        strike(patched, TrainingLoop, "advance", call=4)
        said = run(*how, "--steps", 6, "-o", "out", code=130).stderr.splitlines()
    assert said[0].startswith("Ctrl-C: saving step 4 (")
    assert said[0].endswith("; press again to stop without saving, which loses the 2 steps since step 2")
    assert said[-1] == "error: stopped after step 4; everything is saved, continue with --resume"
    with monkeypatch.context() as patched:
        strike(patched, TrainingLoop, "_average", call=1, times=2)
        said = run("train", "--resume", "-o", "out", "-q", code=130).stderr.splitlines()
    assert "saving step 5" in said[0]
    assert said[1:] == [
        "stopped at once by the second signal, Ctrl-C; what is written is whole, and the same command goes on from it"
    ]
    assert {path.name for path in Path("out/checkpoints").iterdir()} == {"step-00000002", "step-00000004"}
    run("train", "--resume", "-o", "out", "-q")
    assert Path("out/patch.safetensors").read_bytes() == Path("straight/patch.safetensors").read_bytes()
    assert not [name for name in files_in(Path("out")) if ".partial" in name]


def test_encoding_says_that_what_is_encoded_is_kept(
    run: Run, backbone: list[str], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["train", *backbone, "--data", images, "--batch-size", 4, "--steps", 1, "--latent-store", "-q"]
    with monkeypatch.context() as patched:
        strike(patched, encoding, "_measure", call=1)
        said = run(*how, "-o", "out", code=130).stderr
    kept = "what is encoded is kept, except at most the last 8 images"
    assert said == (
        f"Ctrl-C: ending after the images at hand; {kept}; press again to end at once\n"
        f"error: stopped while encoding; {kept}; continue with --resume\n"
    )
    run(*how, "-o", "out", "--resume")


@pytest.mark.parametrize(
    ("command", "owner", "name"),
    [
        ("sample", forward, "predict"),
        ("inspect-gates", PatchedBackbone, "gating"),
        ("eval", DigitClassifier, "forward"),
        ("train", decoding, "_read"),
    ],
)
def test_a_command_that_saves_nothing_ends_in_one_sentence(
    command: str,
    owner: Any,
    name: str,
    run: Run,
    backbone: list[str],
    images: Path,
    patch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed: dict[str, list[Any]] = {
        "sample": ["--patch", patch, "-n", 2, "--steps", 2, "--device", "cpu", "-o", "samples"],
        "inspect-gates": ["--patch", patch, "-o", "gates"],
        "eval": ["--samples", images, "--reference", images, "--features", "digits", "-o", "scores"],
        # It looks at some images first: those that cannot be decoded are said to be damaged, and this one is not.
        "train": [*backbone, "--data", images, "--steps", 2, "-o", "run"],
    }
    strike(monkeypatch, owner, name, call=1)
    assert run(command, *typed[command], "-q", code=130).stderr == ENDED


def test_commands_inside_an_ablation_answer_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    how = ["--backbone", "digits", "--steps", 2, "--points", 1, "-n", 70, "--batch-size", 8, "--sampling-steps", 1]
    Path("arms.toml").write_text('[[arm]]\nname = "plain"\n')
    command = ["ablate", "arms.toml", *how, "--device", "cpu", "-o", "out", "-q"]
    with monkeypatch.context() as patched:
        strike(patched, TrainingLoop, "advance", call=1)
        said = run(*command, code=130).stderr.splitlines()
    assert len(said) == 2
    assert "Ctrl-C: saving step 1 (" in said[0]
    assert "stopped after step 1; everything is saved" in said[1]
    with monkeypatch.context() as patched:
        strike(patched, forward, "predict", call=1)
        assert run(*command, code=130).stderr == ENDED
    run(*command)
    assert Path("out/report.json").exists()


def test_a_demo_answers_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    strike(monkeypatch, forward, "predict", call=1)
    assert run("demo", "--steps", 2, "-n", 60, "-o", "out", "-q", code=130).stderr == ENDED
