"""What ``--dry-run`` shows: a plan as lines of a name and a text each, or as one JSON object."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DMPError
from ..storage import in_bytes
from .console import Printer

if TYPE_CHECKING:
    from ..training import Need

Lines = Sequence[tuple[str, str]]  # what a line is about, and what it says
UNCOUNTED = "cannot be counted for this backbone"


@contextlib.contextmanager
def planning(plan: Mapping[str, Any], printer: Printer) -> Iterator[None]:
    """Context in which ``plan`` is filled. Where that ends in an error, what was understood is given as JSON."""
    try:
        yield
    except DMPError:
        printer.result(dict(plan))
        raise


def show_plan(plan: Mapping[str, Any], lines: Lines, printer: Printer) -> None:
    """Show a plan: its lines, or it itself as JSON."""
    for name, value in lines:
        printer.say(f"{name:<10} {value}")
    printer.result(dict(plan))


def show_commands(
    plan: Mapping[str, Any], lines: Lines, commands: Sequence[str], printer: Printer, *, done: int
) -> None:
    """Show the plan of a command that runs others, and these as they could be typed; ``done`` of them are done.

    The last of ``lines`` stands behind the folder.
    """
    place = Path(plan["output"])
    free = disk_for(place)["free"]
    more = [("commands", f"{len(commands):,}, {done:,} of them done"), ("folder", f"{place}; {in_bytes(free)} free")]
    shown = [*lines[:-1], *more, lines[-1]]
    show_plan({**plan, "done": done, "free": free, "commands": list(commands)}, shown, printer)
    for command in commands:
        printer.say(command)


def disk_for(path: Path, **needed: int) -> dict[str, int]:
    """What is needed for each purpose, in bytes, the sum, and what is free where ``path`` is or will be."""
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    return {**needed, "needed": sum(needed.values()), "free": shutil.disk_usage(there).free}


def told_disk(disk: Mapping[str, int], **purposes: str) -> str:
    """``purposes`` are those of :func:`disk_for` in words; what takes nothing is left out."""
    needs = [f"{in_bytes(disk[name])} for {words}" for name, words in purposes.items() if disk[name]]
    return f"{' and '.join(needs) or 'nothing more'}; {in_bytes(disk['free'])} free"


def memory_of(need: Need | None) -> dict[str, int] | None:
    """The memory of one computation in bytes; None where it cannot be counted."""
    return None if need is None else {"peak": need.peak, "weights": need.weights, "learnt": need.learnt}


def told_processes(count: int) -> str:
    """What stands behind what each of ``count`` processes does."""
    return f" in each of {count} processes" if count > 1 else ""


def told_seconds(seconds: float) -> str:
    """A time in seconds, in minutes, or in hours and minutes."""
    hours, rest = divmod(round(seconds), 3600)
    if hours:
        return f"{hours} h {rest // 60:02d} min"
    return f"{rest // 60} min" if rest >= 60 else f"{rest} s"
