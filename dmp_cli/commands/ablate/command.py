"""``dmp ablate``: arms trained, sampled and scored alike over several seeds, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...config import (
    AblateOptions,
    ArmSampling,
    ArmScoring,
    ArmTraining,
    BackboneOptions,
    CodecOptions,
    CommonOptions,
    JobOptions,
    NetworkOptions,
    SizeOptions,
    ThreadOptions,
)
from ..at_once import jobs_from, run_jobs
from ..completing import offered
from ..console import Printer
from ..in_process import in_shell
from ..inner_needs import InnerNeeds, check_disk_of_commands, told_disk_of_commands, told_memory_of_commands
from ..options import Given, takes
from ..plans import disk_for, planning, show_commands
from ..processes import owning

if TYPE_CHECKING:
    from ...ablation import Plan
    from .planning import Request


@takes(
    *(AblateOptions, ArmTraining, ArmSampling, ArmScoring),
    *(BackboneOptions, CodecOptions, SizeOptions, JobOptions, ThreadOptions),
    first=("backbone", "data", "output", "steps", "seeds", "jobs", "num_images", "reference", "metrics", "features"),
    examples=(
        "dmp ablate table2 --backbone dit-b2 --data ffhq/ --seeds 3",
        "dmp ablate arms.toml --backbone digits -o mine",
    ),
)
def ablate(
    ctx: typer.Context,
    given: Given,
    arms: Annotated[
        str,
        typer.Argument(
            metavar="TABLE|ARMS.toml",
            autocompletion=offered("arms"),
            help="The arms, which are the ways to train that are compared: table2, table3, table4, controls or "
            "guidance, or a TOML file of your own.",
        ),
    ],
) -> None:
    """Train every arm over several seeds, sample all from the same noise, score them, and write one table.

    Run it again to continue where it stopped: a finished arm is not done again.
    """
    from ...ablation import AblationFolder
    from .planning import Request, plan_of, threads_of

    common, asked, network = given.make(CommonOptions), given.make(AblateOptions), given.make(NetworkOptions)
    printer, at_once = Printer(common), jobs_from(given)
    folder = asked.output or Path("ablations") / Path(arms).stem
    parts = given.make(ArmTraining), given.make(ArmSampling), given.make(ArmScoring)
    request = Request(arms, folder, asked, *parts, network, common, given.make(ThreadOptions).threads)
    if common.dry_run:
        _show_plan(request, printer, dmp=ctx.find_root().command, jobs=at_once)
        return
    from ...runtime import refuse_many, threads_limited

    refuse_many("dmp ablate")
    with owning(folder, "dmp ablate"):
        with printer.watching():
            plan, inputs = plan_of(request)[:2]
        threads = threads_of(request)
        owned = AblationFolder(plan, inputs, threads=threads)
        owned.claim(force=asked.force)
        if asked.data is None and not plan.data.exists():
            from ...demo import write_digits

            write_digits(plan.data)
        commands = [in_shell(command) for command in plan.commands()]
        how: dict[str, Any] = {"dmp": ctx.find_root().command, "device": common.device, "folder": folder}
        with threads_limited(threads):
            run_jobs(owned.jobs(), at_once, printer, title="ablate", **how)
        _report(plan, commands, printer)


def _show_plan(request: Request, printer: Printer, *, dmp: Any, jobs: JobOptions) -> None:
    """The arms, what each costs in steps and images, what is done, and every command."""
    from ...ablation import AblationFolder
    from .planning import plan_of, threads_of

    shown: dict[str, Any] = {"arms": request.arms, "output": str(request.folder)}
    with planning(shown, printer), printer.watching():
        plan, inputs, loaded = plan_of(request)
        owned = AblationFolder(plan, inputs, threads=threads_of(request))
        done = owned.check(force=request.options.force)
        left = [job.typed() for job in owned.jobs() if request.options.force or not job.done]
        digits = request.options.data is None and not plan.data.exists()
        needs = InnerNeeds(loaded, dmp)
        disk, memory = disk_for(plan.folder, **needs.disk(left, jobs=jobs, digits=digits)), needs.memory(left)
    names, seeds = [arm.name for arm in plan.arms], len(plan.seeds)
    shown |= {"arms": names, "seeds": seeds, "steps": plan.steps, "num_images": plan.num_images}
    shown |= {"memory": memory, "disk": disk}
    lines = [
        ("arms", f"{len(names)} x {seeds} seeds: {', '.join(names)}"),
        ("train", f"{plan.steps:,} steps each"),
        ("sample", f"{plan.num_images:,} images a set"),
        told_memory_of_commands(memory),
        told_disk_of_commands(disk),
    ]
    show_commands(shown, lines, [in_shell(command) for command in plan.commands()], printer, done=done)
    check_disk_of_commands(disk, plan.folder, printer)


def _report(plan: Plan, commands: list[str], printer: Printer) -> None:
    from ...ablation import build_ablation_page, draw_pictures, notes_of, render_markdown, report_of, table_of
    from ...report import render
    from ...storage import write_bytes, write_json, write_text

    report = report_of(plan)
    pictures = draw_pictures(plan, report)
    page = render(build_ablation_page(plan, report, commands=commands, pictures=pictures))
    (plan.folder / "curves-near.png").unlink(missing_ok=True)  # perhaps of an earlier report, over fewer seeds
    for name, png in pictures.items():
        write_bytes(plan.folder / name, png)
    write_text(plan.folder / "report.md", render_markdown(report))
    write_text(plan.folder / "report.html", page)
    write_json(plan.folder / "report.json", report)
    columns, rows = table_of(report)
    printer.table("Ablation", columns, rows)
    for note in notes_of(report):
        printer.say(note)
    printer.say(f"wrote {plan.folder / 'report.html'}, report.md and report.json")
    printer.result({"output": str(plan.folder), **report})
