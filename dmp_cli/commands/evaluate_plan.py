"""``dmp eval --dry-run``: everything that scoring checks before its first long computation, and what it would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import CommonOptions, EvalConfig, EvalOptions
from ..errors import ConfigError
from ..storage import in_bytes
from .console import Printer
from .plans import Lines, disk_for, planning, show_plan, told_disk, told_processes

if TYPE_CHECKING:
    from ..runtime import World

_FILES = ["report.json", "report.md", "report.html"]


def processes_of(asked: EvalOptions, world: World) -> int:
    """How many share a scoring. Raises ConfigError where both a launcher and ``--jobs`` say so."""
    if world.size > 1 and asked.jobs > 1:
        raise ConfigError("--jobs is for one process; a launcher has started several already")
    return max(world.size, asked.jobs)


def plan_scores(config: EvalConfig, asked: EvalOptions, common: CommonOptions, printer: Printer) -> None:
    """Show the plan of a scoring, in the first of several processes alone. Nothing is written.

    Raises:
        DMPError: what the command itself would end with before it measures.
    """
    from ..evaluation import gates_sections, statistics_bytes, survey_scoring
    from ..runtime import find_world, pick_device
    from ..storage import refuse_existing

    world = find_world()
    if not world.is_first:
        return
    plan: dict[str, Any] = {"eval": config.model_dump(mode="json"), "output": str(asked.output)}
    with planning(plan, printer), printer.watching():
        processes = processes_of(asked, world)
        refuse_existing(asked.output / _FILES[0], force=asked.force)
        if asked.gates:
            gates_sections(asked.gates)
        device = str(pick_device(world.own_device(common.device or "auto")))
        found = survey_scoring(config, device=device)
        plan |= {
            "device": device,
            "jobs": processes,
            "samples": {str(path): count for path, count in found.samples.items()},
            "reference": {"path": str(config.reference), "count": found.reference, "is_measured": found.is_measured},
            "metrics": list(found.metrics),
            "features": found.features,
            "to_measure": found.to_measure,
            "files": _FILES,
        }
        need = found.need
        plan["memory"] = {"peak": need.peak, "moments": need.moments, "images": need.images}
        saved = 0 if config.save_stats is None else statistics_bytes(found.reference or 0, found.width)
        plan["disk"] = disk_for(asked.output, features=found.kept, statistics=saved)
        places = [plan["disk"], disk_for(config.save_stats or asked.output, statistics=saved)]
    show_plan(plan, _in_words(plan, config), printer)
    if any(place["needed"] > place["free"] for place in places):
        printer.warn("the disk may be too small: features take at most what is said")


def told_scoring(memory: dict[str, int]) -> str:
    """The memory of a scoring in words."""
    rest = memory["peak"] - memory["moments"] - memory["images"]
    return (
        f"{in_bytes(memory['peak'])} for scores: {in_bytes(memory['moments'])} moments, {in_bytes(memory['images'])} "
        f"of all images, {in_bytes(rest)} at work; without the network and the images in it"
    )


def _in_words(plan: dict[str, Any], config: EvalConfig) -> Lines:
    reference, (base, *others) = plan["reference"], plan["samples"].items()
    how = "statistics, measured already" if reference["is_measured"] else "images to measure"
    count = "an unknown number of" if reference["count"] is None else f"{reference['count']:,}"
    saved = [] if config.save_stats is None else [("saves", f"the reference's statistics in {config.save_stats}")]
    spread = f"; {config.bootstrap:,} resamples" if config.bootstrap else ""
    spread += f"; {config.repeats:,} parts of the images" if config.repeats else ""
    return [
        ("base", f"{Path(base[0])}, {base[1]:,} images"),
        *(("against", f"{Path(path)}, {number:,} images") for path, number in others),
        ("reference", f"{reference['path']}, {count} {'images as ' if reference['is_measured'] else ''}{how}"),
        ("scores", f"{', '.join(plan['metrics'])} on features of {plan['features']}{spread}"),
        (
            "device",
            f"{plan['device']}, {plan['to_measure']:,} images through the network, {config.batch_size:,} at once"
            + told_processes(plan["jobs"]),
        ),
        ("memory", told_scoring(plan["memory"])),
        (
            "disk",
            "at most "
            + told_disk(
                plan["disk"], features="features while they are computed", statistics="the reference's statistics"
            ),
        ),
        *saved,
        ("files", f"{plan['output']}: {', '.join(plan['files'])}"),
    ]
