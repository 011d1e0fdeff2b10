"""What waits for what, by hand; and every order that the graph allows is one in which each path is ready."""

from __future__ import annotations

from pathlib import Path

from dmp_cli.demo import Story
from dmp_cli.jobs import jobs_of

COMMANDS = [
    ["sample", "--backbone", "digits", "-n", "4", "-o", "out/samples/base"],  # 0
    ["train", "--data", "out/digits", "-o", "out/runs/a", "--resume", "--steps", "2"],  # 1
    ["sample", "--patch", "out/runs/a/patch.safetensors", "-o", "out/samples/a-2"],  # 2
    ["train", "--data", "out/digits", "-o", "out/runs/a", "--resume", "--steps", "4"],  # 3
    ["sample", "--patch", "out/runs/a/patch.safetensors", "-o", "out/samples/a-4"],  # 4
    ["train", "--data", "out/digits", "-o", "out/runs/ab", "--resume", "--steps", "4"],  # 5
    ["eval", "--samples", "out/samples/base", "--samples", "out/samples/a-2", "--save-stats", "out/scores/all.npz",
     "-o", "out/scores/0"],  # 6
    ["eval", "--samples", "out/samples/a-4", "--reference", "out/scores/all.npz", "-o", "out/scores/1"],  # 7
    ["sample", "--against-scale", "W", "-o", "out/samples/chosen"],  # 8: W comes from scores/1
]  # fmt: skip


def test_what_waits_for_what() -> None:
    also = {Path("out/samples/chosen"): Path("out/scores/1")}
    jobs = jobs_of(COMMANDS, folder=Path("out"), typed=lambda number: COMMANDS[number], also_reads=also)
    assert [sorted(job.waits) for job in jobs] == [
        [],
        [],
        [1],
        [1, 2],  # it writes what 1 wrote, and what 2 reads
        [1, 3],
        [],  # runs/ab is not in runs/a
        [0, 2],
        [4, 6],
        [7],
    ]
    assert [job.name for job in jobs][:2] == ["sample samples/base", "train runs/a"]


def test_each_job_types_its_own_command() -> None:
    jobs = jobs_of(COMMANDS, folder=Path("out"), typed=lambda number: [*COMMANDS[number], "--now"])
    assert [job.typed() for job in jobs] == [[*command, "--now"] for command in COMMANDS]


def test_the_demo_trains_all_at_once_and_scores_last() -> None:
    story = Story(folder=Path("demo"))
    commands = [*story.train_commands(), *story.negative_commands()]
    commands += [*story.sample_commands(), *story.closing_commands()]
    jobs = jobs_of(commands, folder=story.folder, typed=lambda number: commands[number])
    at_once = [job.name for job in jobs if not job.waits]
    assert at_once == [
        "train runs/full",
        "train runs/prompt-tuning",
        "train runs/dmp",
        "sample own",
        "sample samples/base",
    ]
    by_name = {job.name: job for job in jobs}
    sets = {by_name[f"sample samples/{name}"].number for name in story.sets()}
    assert by_name["eval scores"].waits == sets
    assert by_name["inspect-gates gates"].waits == {by_name["train runs/dmp"].number}
