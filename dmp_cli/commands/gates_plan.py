"""``dmp inspect-gates --dry-run``: what is checked before the first file, and what would be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..storage import refuse_existing
from .console import Printer
from .plans import Lines, planning, show_plan

if TYPE_CHECKING:
    from .inspect_gates import Inspection

_FILES = ("gates.html", "gates.png", "usage.png", "block-NN.png", "gates.npz", "gates.csv", "summary.json")
_COMPARED, _ADDED = ("comparison.json", "comparison.png"), ("added.csv", "added.png")


def plan_gates(inspection: Inspection, printer: Printer) -> None:
    """Show the plan of a look at a gate. Nothing is written.

    Raises:
        DMPError: what the command itself would end with before it writes.
    """
    from .inspect_gates import weights_over_time

    asked, folder = inspection.asked, inspection.folder
    plan: dict[str, Any] = {"patch": str(inspection.path), "output": str(folder)}
    with planning(plan, printer), printer.watching():
        refuse_existing(folder, force=asked.force)
        patched, codec = inspection.load()
        weights, timesteps, *_ = weights_over_time(patched)
        inspection.gap(weights)
        images = None if codec is None else len(inspection.find_images(patched))
        plan |= {"timesteps": len(timesteps), "blocks": weights.shape[1], "prompts": weights.shape[2]}
        plan |= {"images": None if images is None else min(images, asked.num_images)}
        plan |= {"compare": None if asked.compare is None else str(asked.compare)}
        more = _COMPARED if asked.compare is not None else ()
        plan["files"] = [*_FILES, *more, *(_ADDED if images is not None else ())]
    show_plan(plan, _in_words(plan), printer)


def _in_words(plan: dict[str, Any]) -> Lines:
    shape = f"{plan['timesteps']} timesteps, {plan['blocks']} blocks, {plan['prompts']:,} weights each"
    return [
        ("patch", plan["patch"]),
        ("gate", shape),
        *([] if plan["compare"] is None else [("compare", plan["compare"])]),
        *([] if plan["images"] is None else [("images", f"{plan['images']:,}, at which what is added is measured")]),
        ("files", f"{plan['output']}: {', '.join(plan['files'])}"),
    ]
