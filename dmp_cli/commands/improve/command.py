"""``dmp improve``: a better model from nothing but its own samples, and the proof on real images."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
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
    NegativeOptions,
    NetworkOptions,
    SizeOptions,
)
from ..console import Printer
from ..in_process import in_shell, one_thread, run_inside
from ..options import Given, takes
from ..plans import planning, show_commands
from ..processes import owning
from .planning import Request, folder_of, road_of

if TYPE_CHECKING:
    from ...improvement import CommandFolder, Road


@takes(
    *(ImproveOptions, NegativeOptions, ImproveSampling, ImproveScoring),
    *(BackboneOptions, CodecOptions, SizeOptions),
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
    printer = Printer(common)
    parts = given.make(NegativeOptions), given.make(ImproveSampling), given.make(ImproveScoring)
    request = Request(asked, *parts, given.make(NetworkOptions), common)
    if common.dry_run:
        _show_plan(request, printer)
        return
    from ...runtime import refuse_many

    refuse_many("dmp improve")
    with owning(asked.output, "dmp improve"):
        with printer.watching():
            road, inputs = road_of(request)
        folder = folder_of(road, inputs)
        folder.claim(force=asked.force, inputs=request.inputs)
        if asked.reference is None and not road.digits.exists():
            from ...demo import write_digits

            write_digits(road.digits)
        with one_thread() if request.network.is_digits else contextlib.nullcontext():
            commands = _travel(road, folder, printer, ctx.find_root().command)
        _report(road, commands, printer)


def _show_plan(request: Request, printer: Printer) -> None:
    """What is drawn, trained and scored, what is done, and every command: W stands for the scale that is chosen."""
    from ...improvement import is_whole

    shown: dict[str, Any] = {"output": str(request.options.output)}
    with planning(shown, printer), printer.watching():
        road, inputs = road_of(request)
        folder = folder_of(road, inputs)
        folder.check(force=request.options.force, inputs=request.inputs)
    known = [] if request.options.force or not folder.begun else folder.done()
    number = len(road.first_commands())
    first = [key in known and is_whole(command) for command, key in islice(_commands(road), number)]
    # Until the scale is chosen the last commands are not known.
    done = sum(key in known and is_whole(command) for command, key in _commands(road)) if all(first) else sum(first)
    scales = ", ".join(f"{scale:g}" for scale in road.scales)
    shown |= {"own_samples": road.own_samples, "steps": road.steps, "num_images": road.num_images}
    lines = [
        ("own", f"{road.own_samples:,} samples of the backbone, which the negative learns from"),
        ("train", f"the negative, {road.steps:,} steps"),
        ("sample", f"{road.num_images:,} images for each W of {scales}, and for the one that is chosen"),
        ("reference", str(road.reference)),
    ]
    commands = [in_shell(command) for command in [*road.first_commands(), *road.last_commands(None)]]
    show_commands(shown, lines, commands, printer, done=done)


def _travel(road: Road, folder: CommandFolder, printer: Printer, dmp: Any) -> list[str]:
    """Run what is not done yet; all commands as typed, the scale filled in."""
    from ...improvement import is_whole, scores_of

    total = len(road.first_commands()) + len(road.last_commands(None))
    done, told = folder.done(), []
    with printer.progress("improve", total) as advance:
        for number, (command, key) in enumerate(_commands(road), start=1):
            told.append(in_shell(command))
            if key not in done or not is_whole(command):
                printer.note(told[-1])
                if (scores := scores_of(shlex.split(key))) is not None:
                    folder.unmark_scores(scores, but=key)
                run_inside(command, dmp)
                folder.mark(key)
            advance(number, "")
        advance(total, "")
    return told


def _commands(road: Road) -> Iterator[tuple[list[str], str]]:
    """Every command with a key that depends on no path. The last ones follow from the scores of the first."""
    from ...improvement import read_choice

    moved = replace(road, folder=Path("."), reference=Path("reference"), backbone=())
    yield from zip(road.first_commands(), map(shlex.join, moved.first_commands()), strict=True)
    scale = read_choice(road.scores(chosen=False), road.scales).scale
    if scale is not None:
        yield from zip(road.last_commands(scale), map(shlex.join, moved.last_commands(scale)), strict=True)


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
