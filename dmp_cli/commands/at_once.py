"""Running the commands of a folder: one after the other in this process, or several at once, each in its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from ..config import JobOptions
from ..errors import one_line
from .console import Printer
from .in_process import in_shell, run_inside
from .options import Given

if TYPE_CHECKING:
    from ..jobs import Job, Outcome, Places, Running


def run_jobs(
    jobs: Sequence[Job],
    options: JobOptions,
    printer: Printer,
    *,
    folder: Path,
    title: str,
    dmp: Any,
    device: str | None,
) -> None:
    """Run what is not done.

    ``folder`` is that of all commands; ``dmp`` is the root command, ``ctx.find_root().command``; ``device`` is what
    ``--device`` names.

    Raises:
        DMPError: a command that ran beside others has failed, or there is no such cluster.
        StoppedError: a signal asked for the end of several.
    """
    if options.cluster is None and (options.jobs or 1) == 1:
        _one_by_one(jobs, printer, title=title, dmp=dmp)
        return
    from ..jobs import Cluster, Here, carry_out, read_cluster, slots_of

    places: Places
    if options.cluster is not None:
        places = Cluster(read_cluster(options.cluster), folder / "jobs", at_once=options.jobs)
    else:
        _warn_of_crowd(options.jobs or 1, printer, device=device)
        places = Here(slots_of(options.jobs or 1, device=device))
    board = LiveBoard(jobs, printer, title=title)
    with board.shown():
        carry_out(jobs, places, board)


def jobs_from(given: Given) -> JobOptions:
    """How many commands run at once, and where. Raises ConfigError, before anything is done, for no such cluster."""
    options = given.make(JobOptions)
    if options.cluster is not None:
        from ..jobs import read_cluster

        read_cluster(options.cluster)
    return options


def _one_by_one(jobs: Sequence[Job], printer: Printer, *, title: str, dmp: Any) -> None:
    with printer.progress(title, len(jobs)) as advance:
        for number, job in enumerate(jobs, start=1):
            if not job.done:
                command = job.typed()
                printer.note(in_shell(command))
                job.begin()
                run_inside(command, dmp)
                job.finish()
            advance(number, "")


def _warn_of_crowd(jobs: int, printer: Printer, *, device: str | None) -> None:
    """Say that the processes will wait for each other, where they have more threads than there are cores."""
    import os

    import torch

    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    on_gpu = device not in ("cpu", None, "auto") or (device != "cpu" and torch.cuda.is_available())
    if not on_gpu and threads > 1 and jobs * threads > cores:
        printer.warn(
            f"{jobs} commands with {threads} threads each share {cores} cores; where a folder is begun, "
            f"--threads {max(1, cores // jobs)} gives each its own"
        )


class LiveBoard:
    """What runs where: one table on a terminal, a line when a command begins and ends elsewhere."""

    def __init__(self, jobs: Sequence[Job], printer: Printer, *, title: str) -> None:
        self._printer, self._title, self._is_live = printer, title, False
        self._total, self._done = len(jobs), sum(job.done for job in jobs)
        self._running: dict[int, tuple[Job, Running, float]] = {}  # with when it began

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Context in which the table is on the terminal."""
        with self._printer.live(self.table) as self._is_live:
            yield

    def began(self, job: Job, running: Running, command: Sequence[str]) -> None:
        self._running[job.number] = job, running, time.monotonic()
        if not self._is_live:
            self._printer.note(f"begin {job.name} on {running.where}: {in_shell([*command])}")

    def ended(self, job: Job, running: Running, outcome: Outcome) -> None:
        _, _, since = self._running.pop(job.number)
        self._done += outcome.code == 0
        for warning in outcome.warnings:
            self._printer.warn(f"{job.name}: {warning}")
        how = "done" if outcome.code == 0 else "ended"
        took = _told_time(time.monotonic() - since)
        if not self._is_live:
            self._printer.note(f"{how} {job.name} on {running.where} after {took}; {self._done}/{self._total}")

    def table(self) -> Table:
        """What runs now."""
        left = self._total - self._done - len(self._running)
        found = Table(title=f"{self._title}: {self._done}/{self._total} done, {left} wait", title_justify="left")
        rows = [
            (one_line(job.name), one_line(running.where), _told_time(time.monotonic() - since), running.remark())
            for job, running, since in list(self._running.values())
        ]
        for column in ("command", "where", "for"):
            found.add_column(column, no_wrap=True)
        found.add_column("progress")  # rich takes room away from columns that may wrap; this one is cut off instead
        for *cells, remark in rows:
            found.add_row(*cells, Text(one_line(remark), no_wrap=True, overflow="ellipsis"))
        return found


def _told_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
