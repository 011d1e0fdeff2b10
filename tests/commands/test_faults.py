"""Memory that runs out and devices that fail, in whole commands: one sentence, and no checkpoint of a failed step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.commands.train import sample_grids
from dmp_cli.config import SampleConfig
from dmp_cli.evaluation.digit_classifier import DigitClassifier
from dmp_cli.patching.patched import PatchedBackbone
from dmp_cli.sampling import forward
from dmp_cli.training.loop import TrainingLoop

from .conftest import Run, files_in

LOST = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronous")
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def fail(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception, *, call: int = 1) -> None:
    """Raise ``error`` at the ``call``-th call (1-based) of a function and at all later ones."""
    method: Callable[..., Any] = getattr(owner, name)
    calls = []

    def failing(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) >= call:
            raise error
        return method(*arguments, **named)

    monkeypatch.setattr(owner, name, failing)


@pytest.fixture
def train(backbone: list[str], images: Path) -> list[Any]:
    few = ["--batch-size", 8, "--steps", 6, "--save-every", 2, "--sample-every", 0, "--lr", 0.01, "-q"]
    return ["train", *backbone, "--data", images, *few]


# Where a lost device is noticed: in a step, in the optimizer, as the guard reads its counts, or as the state is saved.
@pytest.mark.parametrize(
    ("owner", "name", "call", "kept"),
    [
        (TrainingLoop, "_denoise", 4, 2),
        (TrainingLoop, "_apply", 4, 2),
        (TrainingLoop, "_average", 4, 2),
        (TrainingLoop, "state", 2, 2),
        (TrainingLoop, "_denoise", 1, None),
    ],
)
def test_a_lost_device_saves_nothing_and_names_the_checkpoint(
    owner: Any,
    name: str,
    call: int,
    kept: int | None,
    run: Run,
    train: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        fail(patched, owner, name, LOST, call=call)
        said = run(*train, "-o", "out", code=1).stderr.splitlines()
    assert said[-2] == "error: the device failed: CUDA error: an illegal memory access was encountered"
    states = sorted(path.name for path in Path("out/checkpoints").glob("*"))
    if kept is None:
        assert said[-1] == "  There is no checkpoint yet: begin with --resume, once the device works again."
        assert states == []
    else:
        assert said[-1] == "  Continue from out/checkpoints/step-00000002 with --resume, once the device works again."
        assert states == ["step-00000002"]
    run("train", "--resume", "-o", "out", "-q")
    run(*train, "-o", "straight")
    assert Path("out/patch.safetensors").read_bytes() == Path("straight/patch.safetensors").read_bytes()
    assert not [file for file in files_in(Path("out")) if ".partial" in file]


def test_a_run_that_ran_out_of_memory_goes_on_in_smaller_micro_batches(
    run: Run, train: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    denoise = TrainingLoop._denoise

    def limited(self: TrainingLoop, inputs: Any, labels: Any, part: slice) -> Any:
        if part.stop - part.start > 2:
            raise NO_MEMORY
        return denoise(self, inputs, labels, part)

    monkeypatch.setattr(TrainingLoop, "_denoise", limited)
    said = run(*train, "-o", "out", code=1).stderr
    assert said.startswith(
        "error: out of memory in step 1, with 8 images on the device at once\n  Continue with --resume "
    )
    assert "--micro-batch-size 4" in said
    said = run("train", "--resume", "--auto-micro-batch", "-o", "out", "-q").stderr
    assert "warning: out of memory with 8 images at once; going on with micro-batches of 4" in said
    assert "warning: out of memory with 4 images at once; going on with micro-batches of 2" in said
    run(*train, "--micro-batch-size", 2, "-o", "named")
    run("train", "--resume", "--micro-batch-size", 2, "--no-auto-micro-batch", "--steps", 8, "-o", "out", "-q")
    run("train", "--resume", "--steps", 8, "-o", "named", "-q")
    assert Path("out/patch.safetensors").read_bytes() == Path("named/patch.safetensors").read_bytes()
    refused = run(*train, "--auto-micro-batch", "--shard-backbone", "-o", "x", code=1).stderr
    assert "--auto-micro-batch and --shard-backbone" in refused


def test_a_grid_that_does_not_fit_is_left_out(run: Run, train: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_grids, "_GRID", SampleConfig(num_images=16, batch_size=16, steps=2))
    fail(monkeypatch, forward, "predict", NO_MEMORY, call=5)  # two of the base
    said = run(*train, "--sample-every", 3, "-o", "out").stderr
    assert "warning: no sample grid of step 6: its 16 images need more memory than there is" in said
    assert [path.name for path in Path("out/samples").iterdir()] == ["step-00000003.png"]


@pytest.mark.parametrize(
    ("size", "hint"), [(4, "Give --batch-size 2, with another -o or --force"), (1, "--dtype bf16")]
)
def test_sampling_names_a_smaller_chunk_and_what_it_changes(
    size: int, hint: str, run: Run, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, forward, "predict", NO_MEMORY)
    how = ["--patch", patch, "-n", 4, "--steps", 2, "--batch-size", size, "--device", "cpu", "-o", "out", "-q"]
    said = run("sample", *how, code=1).stderr
    assert said.startswith(f"error: out of memory while drawing {'4 images at once' if size > 1 else '1 image'}\n")
    assert hint in said
    assert size == 1 or "part of what fixes them" in said


def test_scores_name_a_smaller_batch(run: Run, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, DigitClassifier, "forward", NO_MEMORY)
    how = ["--samples", images, "--reference", images, "--features", "digits", "--batch-size", 8, "-q"]
    said = run("eval", *how, "-o", "out", code=1).stderr
    assert said == "error: out of memory with 8 images in the network at once\n  Give --batch-size 4.\n"


@pytest.mark.parametrize(
    ("error", "told"), [(LOST, "the device failed: CUDA error"), (NO_MEMORY, "out of memory: CUDA")]
)
def test_any_other_command_says_what_the_device_did(
    error: Exception, told: str, run: Run, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, PatchedBackbone, "gating", error)
    (line,) = run("inspect-gates", "--patch", patch, "-o", "gates", "-q", code=1).stderr.splitlines()
    assert line.startswith(f"error: {told}")
    assert "Traceback" in run("inspect-gates", "--patch", patch, "-o", "gates", "-v", code=1).stderr
