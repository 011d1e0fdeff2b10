"""A run of many processes, of which one is killed again and again, goes on with fewer and is the run of one process.

python -m pytest -n 0 -s -m many tests/runtime/test_many_processes.py     64 processes; prints what it measures
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.builders import tiny_dit, write_images, write_meta_checkpoint

from .crowd import Crowd, run_crowds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

STEPS, BATCH, IMAGES = 8, 192, 250  # an epoch ends within a batch
MEMORY = 250  # MB of a process, pages that are shared counted by parts
NUMBERS = 3 + 3  # reduced beside the gradients: terms of the loss, and which signals were received


@dataclass(frozen=True)
class Story:
    """One run by several crowds one after the other, and by a single process."""

    folder: Path
    alone: Crowd
    crowds: list[Crowd]  # the first process of the first is killed, the last but one of the second

    def log(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name / "log.jsonl").read_text().splitlines()]


def tell(folder: Path, sizes: tuple[int, int, int]) -> Story:
    backbone = tiny_dit(hidden_size=64, mlp_size=256, depth=4)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(0.4)  # so that a loss is about 1
    named = {"--backbone": write_meta_checkpoint(folder / "tiny.pt", backbone), "--num-classes": 4, "--num-heads": 2}
    how = {"--batch-size": BATCH, "--steps": STEPS, "--save-every": 3, "--log-every": 1, "--lr": 0.001, "--ema": 0.9}
    named |= {"--data": write_images(folder / "images", count=IMAGES), **how}
    options = ["--latent-store", *(str(part) for pair in named.items() for part in pair)]
    alone = Crowd(folder / "of-one", 1, [*options, "-o", str(folder / "alone")])
    deaths = [[0, 4], [sizes[1] - 2, 6], None]
    crowds = []
    for size, dies in zip(sizes, deaths, strict=True):
        begin = ["--resume"] if crowds else options
        crowds.append(Crowd(folder / f"of-{size}", size, [*begin, "-o", str(folder / "out")], dies, home=folder))
    run_crowds(alone, *crowds)
    return Story(folder, alone, crowds)


@pytest.fixture(
    scope="module",
    params=[pytest.param((8, 6, 4), marks=pytest.mark.slow), pytest.param((64, 48, 32), marks=pytest.mark.many)],
    ids=["8", "64"],
)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    return tell(tmp_path_factory.mktemp("crowds"), request.param)


def test_a_killed_process_ends_all_and_fewer_go_on(story: Story) -> None:
    assert story.alone.codes == [0]
    for crowd in story.crowds:
        killed = None if crowd.dies is None else crowd.dies[0]
        for rank, code in enumerate(crowd.codes):
            expected = 0 if killed is None else -9 if rank == killed else 1
            assert code == expected, f"{rank} of {crowd.size}: {crowd.said(rank)}"
            said = crowd.said(rank)
            assert ("another process of this run has ended" in said) == (code == 1), said
            assert "Traceback" not in said
            assert "damaged" not in said
    # The first process of all is gone before the fifth step's end: the checkpoint of three steps is the newest. The
    # first of the second crowd is still there when another is killed, and saves the six steps that were done.
    begins = [crowd.notes(1)[0]["step"] for crowd in story.crowds]
    assert begins == [0, 3, 6]
    assert not list((story.folder / "out").rglob("*.partial"))


def test_every_step_shows_the_same_images_in_the_same_order(story: Story) -> None:
    expected = story.alone.order()
    assert sorted(expected) == list(range(STEPS))
    assert all(len(images) == BATCH for images in expected.values())
    assert expected[0] != expected[1]
    for crowd, steps in zip(story.crowds, [range(4), range(3, 6), range(6, STEPS)], strict=True):
        assert crowd.order() == {step: expected[step] for step in steps}


def test_the_losses_and_the_patch_are_those_of_one_process(story: Story) -> None:
    expected, found = story.log("alone"), story.log("out")
    assert [line["step"] for line in found] == [line["step"] for line in expected] == list(range(1, STEPS + 1))
    for one, other in zip(expected, found, strict=True):
        assert abs(one["loss"] - other["loss"]) <= 1e-6, one["step"]
    for name in ("patch", "patch-ema"):
        one, other = (load_file(story.folder / run / f"{name}.safetensors") for run in ("alone", "out"))
        for key, value in one.items():
            torch.testing.assert_close(other[key], value, rtol=0, atol=1e-5)


def test_what_is_sent_is_the_patch_alone(story: Story) -> None:
    learnt = sum(value.numel() for value in load_file(story.folder / "out" / "patch.safetensors").values())
    backbone = 4 * sum(value.numel() for value in torch.load(story.folder / "tiny.pt")["ema"].values())
    assert backbone > 40 * 4 * learnt
    state = sum(path.stat().st_size for path in newest(story.folder / "out").glob("*.safetensors"))
    for crowd in story.crowds:
        for rank in range(crowd.size):
            for number, note in enumerate(crowd.notes(rank)):
                assert note["sent"] == {"all_reduce": [4 * (learnt + NUMBERS)], "broadcast": [], "all_gather": []}
                assert note["before"]["all_reduce"] == []
                if number:
                    assert note["before"] == {"all_reduce": [], "broadcast": [], "all_gather": []}
            before = crowd.notes(rank)[:1]
            told = sum(sum(before[0]["before"][name]) for name in ("broadcast", "all_gather")) if before else 0
            assert told < 8000 + (0 if crowd is story.crowds[0] else 1.1 * state)  # settings, and what is gone on from


def newest(run: Path) -> Path:
    return max((run / "checkpoints").iterdir())


def test_a_process_takes_little_memory(story: Story) -> None:
    notes = [note for crowd in story.crowds for rank in range(crowd.size) for note in last(crowd, rank)]
    assert len(notes) > story.crowds[-1].size
    assert max(note["memory"]["Pss"] for note in notes) <= MEMORY
    assert not any(note["heavy"] for note in notes)  # imported and not needed
    for line in figures(story):
        print(line)


def last(crowd: Crowd, rank: int) -> list[dict[str, Any]]:
    """The last note of a process that measured its memory."""
    return [note for note in crowd.notes(rank) if "memory" in note][-1:]


def figures(story: Story) -> list[str]:
    """A row for each crowd: what it took, in seconds and MB; medians, and the most."""
    rows = [
        "",
        "| processes | until the first step | a step | a save | memory of a process: own, shared by parts, all |",
    ]
    for crowd in (story.alone, *story.crowds):
        notes = [crowd.notes(rank) for rank in range(crowd.size)]
        begun = max(of[0]["began"] for of in notes if of)
        steps = [note["seconds"] for of in notes for note in of[1:]]
        memory = [note["memory"] for rank in range(crowd.size) for note in last(crowd, rank)]
        most = ", ".join(str(max((found[name] for found in memory), default=0)) for name in ("own", "Pss", "Rss"))
        middle = [f"{statistics.median(values):.2f}" if values else "-" for values in (steps, crowd.saves())]
        rows.append(f"| {crowd.size} | {begun:.1f} | {' | '.join(middle)} | {most} |")
    apart = [abs(one["loss"] - other["loss"]) for one, other in zip(story.log("alone"), story.log("out"), strict=True)]
    return [*rows, f"losses differ by at most {max(apart):.1g}"]
