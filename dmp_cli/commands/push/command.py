"""``dmp push``: a patch and its card onto the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...config import BackboneOptions, CommonOptions, NetworkOptions, PushOptions
from ...errors import ConfigError
from ..console import Printer
from ..options import Given, takes

if TYPE_CHECKING:
    from ...config import PatchRecord
    from ...hub import Known


@takes(
    PushOptions,
    BackboneOptions,
    first=("license", "base_model", "grid", "scores", "gates", "private", "dry_run"),
    examples=(
        "dmp push run user/name --license apache-2.0 --dry-run",
        "dmp push run/patch-ema.safetensors user/name --license mit",
    ),
)
def push(
    ctx: typer.Context,
    given: Given,
    source: Annotated[Path, typer.Argument(metavar="RUN|PATCH", help="A run's folder, or a patch file.")],
    to: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repository; it is made where there is none.")],
) -> None:
    """Push a patch to the hub, with a card made from what is known of it, in one commit.

    The card says the backbone and its digest, the recipe, the data's name, samples, scores and the gate's picture.
    With --dry-run it is shown, and nothing is sent.
    """
    common, asked = given.make(CommonOptions), given.make(PushOptions)
    printer = Printer(common)
    if asked.license is None:
        raise ConfigError(
            "no licence given", hint="Name the one people may use the patch by with --license, such as apache-2.0."
        )
    from ...hub import files_of, push as push_there
    from ...patching import read_record

    patch = _patch_of(source)
    record = read_record(patch)
    known = _what_is_known(patch, record, asked, given.make(NetworkOptions), printer)
    if (place := record.backbone.source) and Path(place).is_absolute():
        printer.note(f"the patch names the place of its backbone, {place}, which everybody can read there")
    if common.dry_run:
        files = files_of(patch, record, known, to=to)
        sizes = {name: len(it) if isinstance(it, bytes) else it.stat().st_size for name, it in files.items()}
        card = files["README.md"]
        assert isinstance(card, bytes)
        _show_plan(to, sizes, card.decode(), printer)
        return
    pushed = push_there(patch, record, known, to=to, private=asked.private, message=asked.message)
    printer.say(f"pushed {patch} to {pushed.url}")
    printer.say(f"next: dmp sample --patch {pushed.repo}@{pushed.revision[:40]} --download -n 16")
    printer.result({"repo": pushed.repo, "revision": pushed.revision, "url": pushed.url})


def _show_plan(to: str, sizes: dict[str, int], card: str, printer: Printer) -> None:
    if printer.as_json:
        printer.plan({"to": to, "files": sizes, "card": card})
        return
    printer.table(f"Files for {to}", ["file", "bytes"], [[name, f"{size:,}"] for name, size in sizes.items()])
    for line in card.splitlines():
        printer.say(line)


def _patch_of(source: Path) -> Path:
    """The patch file that is meant by a run's folder or a file."""
    if not source.is_dir():
        return source
    path = source / "patch.safetensors"
    if not path.exists():
        raise ConfigError(
            f"{source} holds no patch.safetensors",
            hint="Give the folder of a run of --method dmp or prompt-tuning that has saved a checkpoint, or a patch.",
        )
    return path


def _what_is_known(
    patch: Path, record: PatchRecord, asked: PushOptions, network: NetworkOptions, printer: Printer
) -> Known:
    from ...hub import Known
    from ...patching import base_model_of
    from .pictures import describe_grid, draw_pairs, gates_picture, newest_grid, read_picture

    assert asked.license is not None
    told: dict[str, Any] = {"license": asked.license, "base_model": asked.base_model or base_model_of(record)}
    Known(**told)  # says what is wrong with the licence before anything is drawn
    if asked.scores is not None:
        told["report"] = _read_report(asked.scores)
    if asked.grid is not None:
        told["grid"] = read_picture(asked.grid, name="--grid")
    elif (pairs := draw_pairs(told.get("report"))) is not None:
        told["grid"] = pairs
        told["grid_about"] = (
            "Each column is drawn from the same noise: above by the backbone, below by the patched one."
        )
    elif (grid := newest_grid(patch.parent)) is not None:
        told["grid"] = read_picture(grid, name="the run's grid")
        told["grid_about"] = describe_grid(grid)
    told["gates"] = gates_picture(patch, record, asked.gates, network, printer)
    return Known(**told)


def _read_report(folder: Path) -> dict[str, Any]:
    from ...storage import read_object

    return read_object(folder / "report.json", kind=ConfigError)
