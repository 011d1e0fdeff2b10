"""``dmp eval --dry-run``: everything that scoring checks before its first long computation, and what it would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import CommonOptions, EvalConfig, EvalOptions
from .console import Printer
from .plans import Lines, disk_for, planning, show_plan, told_disk

if TYPE_CHECKING:
    from ..evaluation import Survey

_FILES = ["report.json", "report.md", "report.html"]


def plan_scores(config: EvalConfig, asked: EvalOptions, common: CommonOptions, printer: Printer) -> None:
    """Show the plan of a scoring. Nothing is written.

    Raises:
        DMPError: what the command itself would end with before it measures.
    """
    from ..evaluation import gates_sections, survey_scoring
    from ..runtime import pick_device, refuse_many
    from ..storage import refuse_existing

    plan: dict[str, Any] = {"eval": config.model_dump(mode="json"), "output": str(asked.output)}
    with planning(plan, printer), printer.watching():
        refuse_many("dmp eval --dry-run")
        refuse_existing(asked.output / _FILES[0], force=asked.force)
        if asked.gates:
            gates_sections(asked.gates)
        device = str(pick_device(common.device or "auto"))
        found = survey_scoring(config, device=device)
        plan |= {
            "device": device,
            "jobs": asked.jobs,
            "samples": {str(path): count for path, count in found.samples.items()},
            "reference": {"path": str(config.reference), "count": found.reference, "is_measured": found.is_measured},
            "metrics": list(found.metrics),
            "features": found.features,
            "to_measure": found.to_measure,
            "files": _FILES,
        }
        saved = _statistics(found) if config.save_stats is not None else 0
        plan["disk"] = disk_for(asked.output if config.save_stats is None else config.save_stats, statistics=saved)
    show_plan(plan, _in_words(plan, config), printer)


def _statistics(found: Survey) -> int:
    """Bytes of the reference's statistics: features (n, d) in float32, mean (d,) and covariance (d, d) in float64."""
    return 4 * (found.reference or 0) * found.width + 8 * found.width * (found.width + 1)


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
            + (f" in each of {plan['jobs']} processes" if plan["jobs"] > 1 else ""),
        ),
        ("disk", told_disk(plan["disk"], statistics="the reference's statistics")),
        *saved,
        ("files", f"{plan['output']}: {', '.join(plan['files'])}"),
    ]
