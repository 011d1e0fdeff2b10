"""``dmp convert``: a DiT's weights from one container into another."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..config import BackboneOptions, CodecOptions, CommonOptions, ConvertOptions, NetworkOptions, SizeOptions
from ..errors import ConfigError
from .console import Printer
from .options import Given, takes
from .plans import disk_for, planning, show_plan, told_disk

if TYPE_CHECKING:
    from ..backbones import Backbone


@takes(
    ConvertOptions,
    BackboneOptions,
    CodecOptions,
    SizeOptions,
    first=("backbone", "output", "num_classes", "trained_with"),
    examples=(
        "dmp convert --backbone run/backbone.safetensors -o dit.pt",
        "dmp convert --backbone DiT-XL-2-256x256.pt -o folder/",
    ),
)
def convert(ctx: typer.Context, given: Given) -> None:
    """Write a DiT as a .pt with Meta's names, or as a folder that diffusers loads. Its weights stay as they are."""
    common, asked, network = given.make(CommonOptions), given.make(ConvertOptions), given.make(NetworkOptions)
    printer = Printer(common)
    if asked.output is None:
        raise ConfigError("no place to write to", hint="Name a .pt or a folder with -o.")
    kind = "meta" if asked.output.suffix == ".pt" else "diffusers"
    from ..backbones import check_convertible, write_diffusers, write_meta
    from ..pipeline import load_backbone_alone
    from ..runtime import pick_device
    from ..storage import refuse_existing

    plan: dict[str, Any] = {"backbone": network.name, "output": str(asked.output), "as": kind}
    with planning(plan, printer) if common.dry_run else contextlib.nullcontext():
        refuse_existing(asked.output, force=asked.force)
        backbone = load_backbone_alone(network, pick_device("cpu"))
        check_convertible(backbone, asked.output, as_diffusers=kind == "diffusers")
    if common.dry_run:
        _show_plan(plan, backbone, asked.output, printer)
        return
    remarks: list[str] = []
    if kind == "meta":
        write_meta(asked.output, backbone)
    else:
        remarks = write_diffusers(asked.output, backbone)
    for remark in remarks:
        printer.warn(remark)
    assert backbone.record is not None
    printer.say(f"wrote {asked.output}, digest {backbone.record.digest}")
    printer.result({"output": str(asked.output), "as": kind, "digest": backbone.record.digest, "remarks": remarks})


def _show_plan(plan: dict[str, Any], backbone: Backbone, output: Path, printer: Printer) -> None:
    count = backbone.num_parameters()
    plan |= {"parameters": count, "disk": disk_for(output, weights=4 * count)}
    lines = [
        ("backbone", f"{plan['backbone']} ({backbone.family}), {count:,} parameters"),
        ("as", "a .pt with Meta's names" if plan["as"] == "meta" else "a folder of diffusers"),
        ("disk", told_disk(plan["disk"], weights="the weights")),
        ("files", str(output)),
    ]
    show_plan(plan, lines, printer)
