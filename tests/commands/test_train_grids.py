"""Sample grids of a run are functions of the step: drawn late or by another --sample-every, they are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmp_cli.commands.train import sample_grids
from dmp_cli.commands.train.sample_grids import SampleGrids
from dmp_cli.config import SampleConfig
from dmp_cli.errors import EndedAtOnce
from tests.backbones.pipelines import tiny_pixart, tiny_unet, write_captioned, write_pipeline

from .conftest import Run


@pytest.fixture(autouse=True)
def _few_sampling_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_grids, "_GRID", SampleConfig(num_images=16, batch_size=16, steps=5))


def grids(folder: str) -> dict[int, bytes]:
    paths = Path(folder, "samples").glob("*.png")
    return {int(path.stem.removeprefix("step-")): path.read_bytes() for path in paths}


def drawn(monkeypatch: pytest.MonkeyPatch, *, killed_at: int | None = None) -> list[int]:
    """The steps of the grids that are drawn from now on; the process ends before it draws that of ``killed_at``."""
    steps: list[int] = []
    draw = SampleGrids._draw

    def watched(self: SampleGrids, step: int, path: Path) -> None:
        if step == killed_at:
            raise EndedAtOnce("killed", signal_number=9)
        steps.append(step)
        draw(self, step, path)

    monkeypatch.setattr(SampleGrids, "_draw", watched)
    return steps


def check(run: Run, common: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps, undisturbed; killed before the grid of step 2, then before that of 4, the last; with other steps."""
    common = ["train", *common, "--batch-size", 4, "--lr", 0.05, "--steps", 4, "--save-every", 2, "-q"]
    run(*common, "--sample-every", 2, "-o", "straight")
    expected = grids("straight")
    assert set(expected) == {2, 4}
    assert expected[2] != expected[4]
    with monkeypatch.context() as patched:
        steps = drawn(patched, killed_at=2)
        run(*common, "--sample-every", 2, "-o", "killed", code=130)
        assert (steps, grids("killed")) == ([], {})
    with monkeypatch.context() as patched:
        steps = drawn(patched, killed_at=4)
        run("train", "--resume", "-o", "killed", "-q", code=130)
        assert (steps, set(grids("killed"))) == ([2], {2})
    with monkeypatch.context() as patched:
        steps = drawn(patched)
        run("train", "--resume", "-o", "killed", "-q")
        run("train", "--resume", "-o", "killed", "-q")
        assert steps == [4]  # once, and not that of step 2
    assert grids("killed") == expected
    run(*common, "--sample-every", 4, "-o", "seldom")
    assert grids("seldom") == {4: expected[4]}


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--dtype", "bf16", "--gate-input", "conditioning", "--ema", 0.9],
        ["--dtype", "fp16", "--gradient-checkpointing"],
        ["--method", "full", "--ema", 0.9],
        ["--method", "lora", "--dtype", "bf16"],
        ["--method", "difffit", "--dtype", "bf16", "--gradient-checkpointing", "--ema", 0.9],
        ["--method", "prompt-tuning", "--no-half-frozen", "--micro-batch-size", 2],
    ],
)
def test_of_classes(
    options: list[Any], run: Run, backbone: list[str], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(run, [*backbone, "--data", images, *options], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype"), [("unet", "fp32"), ("unet", "bf16"), ("pixart", "fp16")])
def test_of_captions(kind: str, dtype: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, text = {"unet": (tiny_unet, "clip"), "pixart": (tiny_pixart, "t5")}[kind]
    pipeline = write_pipeline(tmp_path / "pipeline", make(), text=text)
    data = write_captioned(tmp_path / "captioned")
    check(run, ["--backbone", pipeline, "--data", data, "--dtype", dtype], monkeypatch)


def test_a_run_that_begins_draws_nothing_of_step_0(
    run: Run, backbone: list[str], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = drawn(monkeypatch)
    run("train", *backbone, "--data", images, "--batch-size", 4, "--steps", 1, "--sample-every", 2, "-o", "out", "-q")
    assert steps == []


def tiles(path: str) -> np.ndarray:
    """The images of a grid of 4 rows of 8, (4, 8, H, W, C): digits of 8x8, each pixel 8 times as wide and high."""
    picture = np.asarray(Image.open(path))
    height, width = picture.shape[:2]
    gap, side = 2, 64
    top = height - (4 * (side + gap) + gap)  # what the words above take
    assert width == 8 * (side + gap) + gap
    rows = [top + gap + row * (side + gap) for row in range(4)]
    columns = [gap + column * (side + gap) for column in range(8)]
    return np.array([[picture[y : y + side : 8, x : x + side : 8] for x in columns] for y in rows])


@pytest.mark.parametrize("method", ["dmp", "dora", "difffit", "full"])
def test_base_and_learnt_stand_side_by_side(
    method: str, run: Run, backbone: list[str], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings: list[np.ndarray] = []
    draw = SampleGrids._sample

    def seen(self: SampleGrids) -> list[np.ndarray]:
        found = draw(self)
        drawings.append(np.array(found))
        return found

    monkeypatch.setattr(SampleGrids, "_sample", seen)
    train = ["train", *backbone, "--data", images, "--batch-size", 4, "--lr", 0.05, "--method", method, "-q"]
    run(*train, "--steps", 2, "--sample-every", 1, "-o", "out")
    assert len(drawings) == 3  # the base once
    pairs = tiles("out/samples/step-00000002.png")
    left, right = (pairs[:, side::2].reshape(16, 8, 8, 3) for side in (0, 1))
    run("sample", *backbone, "-n", 16, "--batch-size", 16, "--steps", 5, "--guidance", 1.5, "-o", "bare", "-q")
    for index in range(16):
        expected = np.asarray(Image.open(f"bare/{index:06d}.png").convert("RGB"))
        assert (left[index] == expected).all()
    assert (right[..., 0] == drawings[-1][..., 0]).all()
    assert (left != right).any()


def test_a_run_from_before_there_were_pairs_keeps_its_layout(run: Run, backbone: list[str], images: Path) -> None:
    train = ["train", *backbone, "--data", images, "--batch-size", 4, "--sample-every", 1, "-q"]
    run(*train, "--steps", 1, "-o", "out")
    record = Path("out/config.json")
    settings = json.loads(record.read_text())
    assert settings.pop("sample_grids") == "pairs"
    record.write_text(json.dumps(settings))
    run("train", "--resume", "-o", "out", "--steps", 2, "-q")
    run("train", "--resume", "-o", "out", "--steps", 3, "-q")
    widths = [Image.open(path).width for path in sorted(Path("out/samples").iterdir())]
    assert widths == [8 * 66 + 2, 4 * 66 + 2, 4 * 66 + 2]
