"""``dmp patch --dry-run``: what would be written, once everything is checked that is checked before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import Printer
from ..plans import Lines, disk_for, show_plan, told_disk

if TYPE_CHECKING:
    from ...backbones import Backbone
    from ...patching import Patch


def show_new_patch(
    plan: dict[str, Any], made: Patch, backbone: Backbone, printer: Printer, *, output: Path | None
) -> None:
    """Show the plan of a patch that is made or imported; ``plan`` are the options as they were understood."""
    count, whole = made.num_parameters(), backbone.num_parameters()
    plan |= {"patch_parameters": count, "backbone_parameters": whole, "blocks": len(made.hidden_shapes)}
    lines = [
        ("backbone", f"{plan['backbone']} ({backbone.family}), {whole:,} parameters"),
        ("patch", f"{count:,} parameters, +{100 * count / whole:.4f} %, {len(made.hidden_shapes)} blocks"),
        *_files(plan, output, size=4 * count),
    ]
    show_plan(plan, lines, printer)


def show_table(plan: dict[str, Any], timesteps: int, blocks: int, printer: Printer, *, output: Path, size: int) -> None:
    """Show the plan of a table that a patch is baked into, of ``size`` bytes."""
    plan |= {"timesteps": timesteps, "blocks": blocks}
    kind = "dense" if plan["dense"] else "mixtures"
    lines = [
        ("patch", plan["export"]),
        ("table", f"{kind} of {timesteps} timesteps of {plan['sampler']} for {blocks} blocks"),
        *_files(plan, output, size=size),
    ]
    show_plan(plan, lines, printer)


def _files(plan: dict[str, Any], output: Path | None, *, size: int) -> Lines:
    if output is None:
        return [("files", "none: without -o only the sizes are printed")]
    plan["disk"] = disk_for(output, file=size)
    return [("disk", told_disk(plan["disk"], file="the file")), ("files", str(output))]
