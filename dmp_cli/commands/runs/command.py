"""``dmp runs``: what lies below a folder, in one table."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ...config import CommonOptions
from ...errors import ConfigError
from ..console import Printer
from ..options import Given, takes
from .finding import Found, find_all

_COLUMNS = ["where", "what", "how far", "when"]


@takes(first=("json_", "quiet"), examples=("dmp runs", "dmp runs experiments/ --json"))
def runs(
    ctx: typer.Context,
    given: Given,
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to look, and in all folders below.")] = Path(),
) -> None:
    """List the runs, patches, samples and scores below a folder: what, when, how far, and who works there now.

    Everything is read from the files as they are; nothing is changed.
    """
    common = given.make(CommonOptions)
    printer = Printer(common)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder")
    if common.dry_run:
        printer.plan({"folder": str(folder)})
        return
    found = sorted(find_all(folder), key=lambda one: one.changed)
    if found:
        printer.table(f"{len(found)} found, the newest last", _COLUMNS, [_row(one, folder) for one in found], left=4)
    else:
        printer.say(f"nothing that dmp has written is in {folder}")
    printer.result({"found": [one.to_json() for one in found]})


def _row(one: Found, folder: Path) -> list[str]:
    when = datetime.datetime.fromtimestamp(one.changed)
    this_year = when.year == datetime.datetime.now().year
    return [
        str(Path(one.path).relative_to(folder)),
        f"{one.kind}: {one.about}",
        "; ".join(_how_far(one)),
        when.strftime("%b %d %H:%M" if this_year else "%b %d %Y"),
    ]


def _how_far(one: Found) -> Iterator[str]:
    if one.steps is not None:
        yield f"{one.steps:,} steps" if one.of_steps is None else f"{one.steps:,} of {one.of_steps:,} steps"
    if one.held_out is not None:
        yield f"held-out loss {one.held_out:.5g}"
    yield from (told for told in (one.score, one.state) if told)
