"""``dmp demo``: the whole story on embedded real data, offline, by running the other commands one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..config import CommonOptions, DemoOptions, describe_changes
from ..errors import ConfigError
from .console import Printer
from .in_process import in_shell, run_inside
from .options import Given, takes
from .processes import owning

if TYPE_CHECKING:
    from ..demo import Story


@takes(DemoOptions)
def demo(ctx: typer.Context, given: Given) -> None:
    """Further-train a small converged model on real digits three ways, score them, and write a page to look at.

    Converged means that more of the same training no longer improves it. The demo takes about two minutes on two cores
    and needs no network. Run it again to continue where it was stopped.
    """
    from ..demo import Story

    common, asked = given.make(CommonOptions), given.make(DemoOptions)
    printer = Printer(common)
    story = Story(folder=asked.output, steps=asked.steps, num_images=asked.num_images, seed=common.seed or 0)
    commands = [*story.train_commands(), *story.sample_commands(), *story.closing_commands()]
    if common.dry_run:
        for command in commands:
            printer.say(in_shell(command))
        printer.result({"commands": [in_shell(command) for command in commands]})
        return
    from ..runtime import refuse_many

    refuse_many("dmp demo")
    with owning(story.folder, "dmp demo"):
        _tell(story, commands, printer, dmp=ctx.find_root().command, force=asked.force)


def _tell(story: Story, commands: list[list[str]], printer: Printer, *, dmp: Any, force: bool) -> None:
    import torch

    from ..demo import build_demo_page, draw_side_by_side, write_digits
    from ..report import render
    from ..storage import remove_partials, write_bytes, write_text

    _claim(story, force=force)
    remove_partials(story.folder)
    if not story.digits.exists():
        write_digits(story.digits)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a model this small a second thread costs more than it brings
    with printer.progress("demo", len(commands)) as advance:
        for done, command in enumerate(commands):
            printer.note(in_shell(command))
            run_inside(command, dmp)
            advance(done + 1, "")
    torch.set_num_threads(threads)
    write_bytes(story.side_by_side, draw_side_by_side(story))
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

    from ..storage import clear_owned, read_json, refuse_existing, write_json

    about_file = story.folder / "demo.json"
    about = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(story).items()}
    if force and about_file.exists():  # a folder that is not a demo's is never removed
        clear_owned(story.folder)
    earlier = read_json(about_file) if about_file.exists() else None
    if isinstance(earlier, dict) and earlier != about:
        raise ConfigError(
            f"{story.folder} holds a demo with other settings: {describe_changes(earlier, about)}",
            hint="Give another folder with -o, or replace this one with --force.",
        )
    if earlier is None:
        refuse_existing(story.folder, force=False)
        write_json(about_file, about)
