"""``dmp convert``: a DiT's weights from one container into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from . import options as opt
from .console import Printer


@opt.with_options(opt.backbone, opt.backbone_sizes, opt.everywhere)
def convert(
    ctx: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .pt with Meta's names, or a folder of diffusers.")
    ] = None,
    force: opt.Force = False,
) -> None:
    """Write a DiT as a .pt with Meta's names, or as a folder that diffusers loads. Its weights stay as they are."""
    printer, options = Printer(ctx.params), ctx.params
    if output is None:
        raise ConfigError("nowhere to write to", hint="Name a .pt or a folder with -o.")
    kind = "meta" if output.suffix == ".pt" else "diffusers"
    name = options["backbone"] or options["checkpoint"]
    if options["dry_run"]:
        printer.plan({"backbone": name and str(name), "output": str(output), "as": kind})
        return
    from ..backbones import write_diffusers, write_meta
    from ..pipeline import load_backbone_alone
    from ..runtime import pick_device
    from ..storage import refuse_existing

    refuse_existing(output, force=force)
    backbone = load_backbone_alone(options, pick_device("cpu"))
    remarks: list[str] = []
    if kind == "meta":
        write_meta(output, backbone)
    else:
        remarks = write_diffusers(output, backbone)
    for remark in remarks:
        printer.warn(remark)
    assert backbone.record is not None
    printer.say(f"wrote {output}, digest {backbone.record.digest}")
    printer.result({"output": str(output), "as": kind, "digest": backbone.record.digest, "remarks": remarks})
