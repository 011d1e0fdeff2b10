"""``dmp demo``: the whole story on embedded real data, offline, by running the other commands one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ..config import CommonOptions, DemoOptions, JobOptions
from .at_once import jobs_from, run_jobs
from .console import Printer
from .in_process import in_shell, one_thread
from .options import Given, takes
from .processes import owning

if TYPE_CHECKING:
    from ..demo import Story


@takes(
    *(DemoOptions, JobOptions),
    first=("output", "steps", "num_images"),
    examples=(
        "dmp demo",
        "dmp demo --steps 4 -n 60 -o quick",
    ),
)
def demo(ctx: typer.Context, given: Given) -> None:
    """Try to improve a small converged model on real digits four ways, score them, and write a page to look at.

    Converged means that more of the same training no longer improves it. The demo takes about three minutes on two
    cores and needs no network. Run it again to continue where it was stopped.
    """
    from ..demo import Story

    common, asked = given.make(CommonOptions), given.make(DemoOptions)
    printer, at_once = Printer(common), jobs_from(given)
    story = Story(folder=asked.output, steps=asked.steps, num_images=asked.num_images, seed=common.seed or 0)
    commands = [*story.train_commands(), *story.negative_commands()]
    commands += [*story.sample_commands(), *story.closing_commands()]
    if common.dry_run:
        for command in commands:
            printer.say(in_shell(command))
        printer.result({"commands": [in_shell(command) for command in commands]})
        return
    from ..runtime import refuse_many

    refuse_many("dmp demo")
    with owning(story.folder, "dmp demo"):
        _tell(story, commands, printer, at_once, dmp=ctx.find_root().command, force=asked.force)


def _tell(
    story: Story, commands: list[list[str]], printer: Printer, options: JobOptions, *, dmp: Any, force: bool
) -> None:
    from ..demo import build_demo_page, draw_before_after, draw_side_by_side, write_digits
    from ..jobs import jobs_of
    from ..report import render
    from ..storage import write_bytes, write_text

    _claim(story, force=force)
    if not story.digits.exists():
        write_digits(story.digits)
    jobs = jobs_of(commands, folder=story.folder, typed=lambda number: commands[number])
    with one_thread():
        run_jobs(jobs, options, printer, title="demo", folder=story.folder, dmp=dmp, device="cpu")
    write_bytes(story.side_by_side, draw_side_by_side(story))
    write_bytes(story.before_after, draw_before_after(story))
    page, summary = build_demo_page(story, [in_shell(command) for command in commands])
    write_text(story.page, render(page))
    printer.table(summary.title, summary.columns, summary.rows)
    for line in summary.remarks:
        printer.say(line)
    printer.say(f"wrote {story.folder / 'index.html'}: open it in a browser")
    printer.result({"output": str(story.folder), "page": str(story.page), "scores": summary.scores})


def _claim(story: Story, *, force: bool) -> None:
    """Take the folder: an earlier demo of the same budget is continued, anything else is refused."""
    from dataclasses import asdict

    from ..improvement import CommandFolder

    CommandFolder(story.folder, about=asdict(story), noun="demo", free=("folder",)).claim(force=force)
