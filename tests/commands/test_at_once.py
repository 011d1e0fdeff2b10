"""What is shown of commands that run at once: a table on a terminal, lines elsewhere, warnings in both."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dmp_cli.commands.at_once import LiveBoard
from dmp_cli.commands.console import Printer
from dmp_cli.config import CommonOptions
from dmp_cli.jobs import Job, Outcome

from .conftest import Run


class Running:
    where = "cuda 1"

    def remark(self) -> str:
        return "train 50/2000 \x1b[31m" + "loss 0.1 " * 20


def board() -> tuple[LiveBoard, Job]:
    job = Job(0, "train runs/plain-seed0", "key", None, frozenset(), lambda: ["train"], False)
    return LiveBoard([job], Printer(CommonOptions()), title="ablate"), job


def test_a_table_on_a_terminal() -> None:
    shown, job = board()
    shown._is_live = True  # as on a terminal
    shown.began(job, Running(), ["train", "-o", "x"])
    console = Console(file=io.StringIO(), width=80)
    console.print(shown.table())
    told = console.file.getvalue()
    assert "ablate: 0/1 done, 0 wait" in told
    row = next(line for line in told.splitlines() if "plain-seed0" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][:3] == ["train runs/plain-seed0", "cuda 1", "0:00"]
    assert "\x1b" not in row  # what a process says moves no cursor
    assert "…" in row  # the progress is cut off, and nothing else


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shown, job = board()
    with shown.shown():
        shown.began(job, Running(), ["train", "-o", "x"])
        shown.ended(job, Running(), Outcome(0, [], ["few images"]))
    assert sys.stderr.getvalue().splitlines() == [
        "begin train runs/plain-seed0 on cuda 1: dmp train -o x",
        "warning: train runs/plain-seed0: few images",
        "done train runs/plain-seed0 on cuda 1 after 0:00; 1/1",
    ]


@pytest.mark.parametrize("command", [["ablate", "table2"], ["improve"], ["tune"], ["demo"]])
def test_no_such_cluster_is_refused_before_anything_is_done(run: Run, tmp_path: Path, command: list[str]) -> None:
    how = [] if command == ["demo"] else ["--backbone", "digits"]
    said = run(*command, *how, "--cluster", "slrum", "-o", "out", code=1).stderr
    assert said.startswith("error: --cluster slrum: neither slurm nor local, nor a .toml file")
    assert not list(tmp_path.iterdir())
