"""``dmp tune``: a search over options whose winner is measured again on seeds and images that no trial saw."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import typer

from ...config import (
    ArmSampling,
    BackboneOptions,
    CodecOptions,
    CommonOptions,
    JobOptions,
    NetworkOptions,
    SizeOptions,
    TuneImages,
    TuneOptions,
    TuneScoring,
    TuneTraining,
)
from ...storage import in_bytes
from ..at_once import jobs_from
from ..console import Printer
from ..in_process import in_shell, one_thread
from ..inner_needs import InnerNeeds, check_disk_of_commands, told_disk_of_commands, told_memory_of_commands
from ..options import Given, takes
from ..plans import disk_for, planning, show_plan

if TYPE_CHECKING:
    from ...tuning import Journal, Outcome, Tuning
    from .planning import Request


@takes(
    *(TuneOptions, TuneImages, TuneTraining, ArmSampling, TuneScoring),
    *(BackboneOptions, CodecOptions, SizeOptions, JobOptions),
    first=("backbone", "data", "output", "ranges", "trials", "steps", "by", "reference", "features"),
    examples=(
        "dmp tune --backbone digits --trials 8 -o tune",
        "dmp tune --backbone dit-b2 --data ffhq/ --ranges ranges.toml -o tune",
    ),
)
def tune(ctx: typer.Context, given: Given) -> None:
    """Search good options for a training, then measure the winner again on seeds and images that no trial saw.

    Type the same command in several shells to share the trials among them, and again to continue where it stopped.
    """
    from .planning import Request, defaults_of, tuning_of

    common, asked = given.make(CommonOptions), given.make(TuneOptions)
    printer = Printer(common)
    at_once = jobs_from(given)
    parts = given.make(TuneImages), given.make(TuneTraining), given.make(ArmSampling), given.make(TuneScoring)
    request = Request(asked, *parts, given.make(NetworkOptions), common)
    if common.dry_run:
        _show_plan(request, printer, dmp=ctx.find_root().command, jobs=at_once)
        return
    from ...runtime import refuse_many
    from ...tuning import Journal

    refuse_many("dmp tune")
    with printer.watching():
        plan, about = tuning_of(request)[:2]
    how: dict[str, Any] = {"ranges": plan.ranges, "defaults": defaults_of(plan.ranges), "seed": plan.seed}
    journal = Journal(plan.journal, **how, warmup=plan.steps // 4, round_size=plan.round_size)
    with one_thread() if request.network.is_digits else contextlib.nullcontext():
        _work(plan, about, journal, request, printer, given, ctx.find_root().command)


def _work(
    plan: Tuning, about: dict[str, Any], journal: Journal, request: Request, printer: Printer, given: Given, dmp: Any
) -> None:
    from ...tuning import best_of, read_outcome
    from .several import run_workers
    from .worker import Worker, claim_folder

    def prepare() -> None:
        from ...storage import write_text

        if request.options.data is None and not plan.digits.exists():
            from ...demo import write_digits

            write_digits(plan.digits)
        write_text(plan.folder / "ranges.toml", plan.ranges.in_toml())

    claim_folder(
        plan, force=request.options.force, inputs=request.inputs, prepare=prepare, journal=journal, about=about
    )
    for line in plan.ranges.in_toml().splitlines():
        printer.note(line)
    run_workers(plan, given, printer, dmp=dmp)
    worker = Worker(plan, journal, printer, dmp, waits=request.options.wait)
    is_done = worker.search()
    if is_done:
        best = best_of(journal.trials())
        is_done = best.number == 0 or worker.final(best)
    if not is_done:
        for told in worker.elsewhere:
            printer.note(told)
        printer.say("the rest is being done by other processes; the last of them writes the report")
        printer.result({"output": str(plan.folder), "elsewhere": worker.elsewhere})
        return
    _report(plan, read_outcome(plan, journal.trials()), printer)


def _show_plan(request: Request, printer: Printer, *, dmp: Any, jobs: JobOptions) -> None:
    """What trials and final cost, the ranges, and the commands of both: a W stands for the winner."""
    from .needs import needs_of_search
    from .planning import tuning_of

    shown: dict[str, Any] = {"output": str(request.options.output)}
    with planning(shown, printer), printer.watching():
        plan, _, loaded = tuning_of(request)
    first = [in_shell(command) for command in plan.trial_commands(0, {})]
    final = [in_shell(command) for seed in plan.final_seeds for command in plan.final_commands(0, {}, seed)]
    is_begun = plan.journal.exists() and not request.options.force
    shown |= {"trials": plan.trials, "steps": plan.steps, "num_images": plan.num_images, "is_begun": is_begun}
    needed, memory = needs_of_search(plan, InnerNeeds(loaded, dmp), jobs=jobs)
    disk = disk_for(plan.folder, **needed)
    shown |= {"memory": memory}
    shown |= {"ranges": plan.ranges.in_toml(), "commands": first, "final": final, "free": disk["free"], "disk": disk}
    drawn = f", {plan.num_images:,} images a set" if plan.num_images else ""
    lines = [
        ("trials", f"{plan.trials:,} of {plan.steps:,} steps, by {plan.objective}{drawn}"),
        ("final", f"winner and defaults, {len(plan.final_seeds)} seeds each"),
        ("folder", f"{plan.folder}{', where trials are already' if is_begun else ''}; {in_bytes(shown['free'])} free"),
        told_memory_of_commands(memory),
        told_disk_of_commands(disk),
    ]
    show_plan(shown, lines, printer)
    check_disk_of_commands(disk, plan.folder, printer)
    for line in plan.ranges.in_toml().splitlines():
        printer.say(line)
    printer.say("the first trial, with the defaults, is:")
    for command in first:
        printer.say(command)
    printer.say("the winner and the defaults are then trained again and measured on other images:")
    for command in final:
        printer.say(command)


def _report(plan: Tuning, outcome: Outcome, printer: Printer) -> None:
    from ...report import render
    from ...storage import write_bytes, write_json, write_text
    from ...tuning import build_tuning_page, draw_trials, gain_table, render_summary, sentences, winner_toml

    commands = [
        in_shell(command) for trial in outcome.trials for command in plan.trial_commands(trial.number, trial.options)
    ]
    if outcome.final is not None:
        chosen = {0: outcome.trials[0].options, outcome.best.number: outcome.best.options}
        for seed in plan.final_seeds:
            for number, options in chosen.items():
                commands += [in_shell(command) for command in plan.final_commands(number, options, seed)]
            commands += [in_shell(command) for command in plan.final_scores(outcome.best.number, seed)]
    use, picture = in_shell(plan.use(outcome.best.options)), draw_trials(plan, outcome)
    page = build_tuning_page(plan, outcome, commands=commands, use=use, picture=picture)
    report = {**outcome.to_json(plan), "use": use}
    write_bytes(plan.folder / "trials.png", picture)
    write_text(plan.folder / "winner.toml", winner_toml(outcome, plan))
    write_text(plan.folder / "report.md", render_summary(plan, outcome))
    write_text(plan.folder / "report.html", render(page))
    write_json(plan.folder / "report.json", report)
    columns, rows = gain_table(plan, outcome)
    printer.table("What the search gained", columns, rows)
    for sentence in sentences(plan, outcome):
        printer.say(sentence)
    printer.say(f"train with what was found: {use}")
    printer.say(f"wrote {plan.folder / 'report.html'}, report.md and report.json")
    printer.result({"output": str(plan.folder), **report})
