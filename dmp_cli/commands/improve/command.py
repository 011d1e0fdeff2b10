"""``dmp improve``: a better model from nothing but its own samples, and the proof on real images."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...config import (
    BackboneOptions,
    CodecOptions,
    CommonOptions,
    ImproveOptions,
    ImproveSampling,
    ImproveScoring,
    JobOptions,
    NegativeOptions,
    NetworkOptions,
    SizeOptions,
    ThreadOptions,
)
from ..at_once import jobs_from, run_jobs
from ..console import Printer
from ..in_process import in_shell, one_thread
from ..inner_needs import InnerNeeds, check_disk_of_commands, told_disk_of_commands, told_memory_of_commands
from ..options import Given, takes
from ..plans import disk_for, planning, show_commands
from ..processes import owning
from .planning import Request, folder_of, road_of, threads_of

if TYPE_CHECKING:
    from ...improvement import CommandFolder, Road


@takes(
    *(ImproveOptions, NegativeOptions, ImproveSampling, ImproveScoring),
    *(BackboneOptions, CodecOptions, SizeOptions, JobOptions, ThreadOptions),
    first=("backbone", "reference", "output", "own_samples", "steps", "scales", "num_images", "features"),
    examples=(
        "dmp improve --backbone digits -o better",
        "dmp improve --backbone dit-b2 --reference ffhq/ -o better",
    ),
)
def improve(ctx: typer.Context, given: Given) -> None:
    """Make a backbone better by sampling it against a version that has learnt from the backbone's own samples.

    Draws samples, trains the negative on them, chooses the scale W on one half of the reference, and scores the result
    on the other half and on fresh noise. Run it again to continue where it stopped.
    """
    common, asked = given.make(CommonOptions), given.make(ImproveOptions)
    printer, at_once = Printer(common), jobs_from(given)
    parts = given.make(NegativeOptions), given.make(ImproveSampling), given.make(ImproveScoring)
    request = Request(asked, *parts, given.make(NetworkOptions), common, given.make(ThreadOptions).threads)
    if common.dry_run:
        _show_plan(request, printer, dmp=ctx.find_root().command, jobs=at_once)
        return
    from ...runtime import refuse_many, threads_limited

    refuse_many("dmp improve")
    with owning(asked.output, "dmp improve"):
        with printer.watching():
            road, inputs = road_of(request)[:2]
        threads = threads_of(request)
        folder = folder_of(road, inputs, threads=threads)
        folder.claim(force=asked.force, inputs=request.inputs)
        if asked.reference is None and not road.digits.exists():
            from ...demo import write_digits

            write_digits(road.digits)
        how: dict[str, Any] = {"dmp": ctx.find_root().command, "device": common.device}
        is_older = threads is None and request.network.is_digits  # begun by a version that limited torch alone
        with one_thread() if is_older else threads_limited(threads):
            commands = _travel(road, folder, at_once, printer, **how)
        _report(road, commands, printer)


def _show_plan(request: Request, printer: Printer, *, dmp: Any, jobs: JobOptions) -> None:
    """What is drawn, trained and scored, what is done, and every command: W stands for the scale that is chosen."""
    from ...improvement import is_whole, read_choice

    shown: dict[str, Any] = {"output": str(request.options.output)}
    with planning(shown, printer), printer.watching():
        road, inputs, loaded = road_of(request)
        folder = folder_of(road, inputs, threads=threads_of(request))
        folder.check(force=request.options.force, inputs=request.inputs)
    known = [] if request.options.force or not folder.begun else folder.done()
    first = [key in known and is_whole(command) for command, key in zip(*_first(road), strict=True)]
    done = sum(first)
    left = [command for command, is_done in zip(road.first_commands(), first, strict=True) if not is_done]
    if all(first):  # until the scale is chosen the last commands are not known
        last = _last(road, read_choice(road.scores(chosen=False), road.scales).scale)
        whole = [key in known and is_whole(command) for command, key in zip(*last, strict=True)]
        left = [command for command, is_done in zip(last[0], whole, strict=True) if not is_done]
        done += sum(whole)
    else:
        left += road.last_commands(None)
    digits = request.options.reference is None and not road.digits.exists()
    needs = InnerNeeds(loaded, dmp)
    disk, memory = disk_for(road.folder, **needs.disk(left, jobs=jobs, digits=digits)), needs.memory(left)
    scales = ", ".join(f"{scale:g}" for scale in road.scales)
    shown |= {"own_samples": road.own_samples, "steps": road.steps, "num_images": road.num_images}
    shown |= {"memory": memory, "disk": disk}
    lines = [
        ("own", f"{road.own_samples:,} samples of the backbone, which the negative learns from"),
        ("train", f"the negative, {road.steps:,} steps"),
        ("sample", f"{road.num_images:,} images for each W of {scales}, and for the one that is chosen"),
        ("reference", str(road.reference)),
        told_memory_of_commands(memory),
        told_disk_of_commands(disk),
    ]
    commands = [in_shell(command) for command in [*road.first_commands(), *road.last_commands(None)]]
    show_commands(shown, lines, commands, printer, done=done)
    check_disk_of_commands(disk, road.folder, printer)


def _travel(road: Road, folder: CommandFolder, options: JobOptions, printer: Printer, **how: Any) -> list[str]:
    """Run what is not done yet; all commands as typed, the scale filled in."""
    from ...improvement import read_choice

    first = _first(road)
    run_jobs(folder.jobs(*first), options, printer, folder=folder.path, title="improve", **how)
    scale = read_choice(road.scores(chosen=False), road.scales).scale
    last = _last(road, scale)
    run_jobs(folder.jobs(*last), options, printer, folder=folder.path, title="score the result", **how)
    return [in_shell(command) for command in [*first[0], *last[0]]]


def _first(road: Road) -> tuple[list[list[str]], list[str]]:
    """The commands until the scale can be chosen, and for each a key that depends on no path."""
    return road.first_commands(), [shlex.join(command) for command in _moved(road).first_commands()]


def _last(road: Road, scale: float | None) -> tuple[list[list[str]], list[str]]:
    """The commands that follow from the scores of the first, with their keys; none where no scale is better."""
    if scale is None:
        return [], []
    return road.last_commands(scale), [shlex.join(command) for command in _moved(road).last_commands(scale)]


def _moved(road: Road) -> Road:
    return replace(road, folder=Path("."), reference=Path("reference"), backbone=())


def _report(road: Road, commands: list[str], printer: Printer) -> None:
    from ...improvement import build_improvement_page, draw_before_after, read_outcome
    from ...report import render
    from ...storage import write_bytes, write_json, write_text

    outcome = read_outcome(road)
    scale = outcome.choice.scale
    use = None if scale is None else in_shell(road.use(scale))
    write_bytes(road.folder / "before-after.png", draw_before_after(road, outcome))
    page = road.folder / "index.html"
    write_text(page, render(build_improvement_page(road, outcome, commands=commands, use=use)))
    result = {
        "output": str(road.folder),
        "page": str(page),
        "scale": scale,
        "negative": str(road.version),
        "use": use,
        "choice": {"metric": outcome.choice.metric, "base": outcome.choice.base, "scores": outcome.choice.scores},
        "scores": None if outcome.scored is None else {"base": outcome.base, "result": outcome.result},
    }
    write_json(road.folder / "result.json", result)
    if outcome.scored is not None:
        printer.table("Scored on the other half of the reference, on fresh noise", *outcome.table())
    for sentence in outcome.sentences():
        printer.say(sentence)
    if use is not None:
        printer.say(f"sample the result with: {use}")
    printer.say(f"wrote {page}: open it in a browser")
    printer.result(result)
