"""``dmp eval --loss --dry-run``: what is checked before a loss is measured, and what would be measured."""

from __future__ import annotations

from typing import Any

from ..config import CommonOptions, EvalOptions, LossOptions
from .console import Printer
from .held_out_loss import FILES
from .measured import check_measured, find_held_out, load_measured
from .options import Given
from .plans import planning, show_plan, told_processes


def plan_loss(given: Given, common: CommonOptions, asked: EvalOptions, printer: Printer) -> None:
    """Show the plan of a measurement, in the first of several processes alone. Nothing is written.

    Raises:
        DMPError: what the command itself would end with before its first loss.
    """
    from ..backbones import Keeping
    from ..runtime import find_world, pick_device
    from ..storage import refuse_existing

    world = find_world()
    if not world.is_first:
        return
    options = given.make(LossOptions)
    plan: dict[str, Any] = {"loss": options.model_dump(mode="json"), "output": str(asked.output)}
    with planning(plan, printer), printer.watching():
        refuse_existing(asked.output / FILES[0], force=asked.force)
        device = pick_device(world.own_device(common.device or "auto"))
        how = Keeping("fp32", options.quantize, options.offload_blocks)
        how.check(device)
        loaded = load_measured(given, "cpu" if how.packs else str(device))
        images = find_held_out(given, loaded)
        check_measured(given, loaded)
        networks = 1 + len(options.patch) + len(options.adapter)
        plan |= {"device": str(device), "images": len(images), "networks": networks, "files": list(FILES)}
        plan["processes"] = world.size
    measured = [str(path) for path in (*options.patch, *options.adapter)]
    lines = [
        ("measures", f"{', '.join(measured)}, each against the bare backbone"),
        ("device", f"{device}, {networks} networks{told_processes(world.size)}"),
        ("images", f"{len(images):,} of {options.val_data}, {options.val_draws:,} draws for each network"),
        ("files", f"{asked.output}: {', '.join(FILES)}"),
    ]
    show_plan(plan, lines, printer)
