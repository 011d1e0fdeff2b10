"""``dmp patch``: make a zero patch, print Table 1's row, or say what a patch file is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import PatchConfig, PatchRecord
from . import _options as opt
from ._console import Printer


@opt.with_options(opt.variant, opt.backbone, opt.backbone_sizes, opt.everywhere)
def patch(
    ctx: typer.Context,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write.")] = None,
    info: Annotated[Path | None, typer.Option("--info", help="Say in words what a patch file is.")] = None,
    force: opt.Force = False,
) -> None:
    """Make a zero patch (it changes nothing until trained) and print how large it is.

    Without -o only the table, and then no weights are needed for a name such as dit-l2.
    """
    printer = Printer(ctx.params)
    if info is not None:
        _print_info(info, printer)
        return
    patch_config = opt.configure(PatchConfig, ctx.params)
    if ctx.params["dry_run"]:
        plan = {"patch": patch_config.model_dump(), "backbone": ctx.params["backbone"]}
        printer.plan({**plan, "output": output and str(output)})
        return
    if output is not None:
        from ..files import refuse_existing

        refuse_existing(output, force=force)
        _write(output, patch_config, ctx.params, printer)
    else:
        _count(patch_config, ctx.params, printer)


def _write(output: Path, config: PatchConfig, options: dict[str, Any], printer: Printer) -> None:
    from ..codec import image_size
    from ..devices import pick_device
    from ..engine import create_patch
    from ..patchfile import save_patch
    from ._models import load_bare

    loaded = load_bare(options, pick_device(options["device"] or "cpu"))
    size = image_size(loaded.codec, loaded.backbone)
    seed = options["seed"] or 0
    made = create_patch(loaded.backbone, config, codec=loaded.codec.record, image_size=size, seed=seed)
    save_patch(output, made)
    _print_sizes(loaded.backbone, made, options, printer, path=output)


def _count(config: PatchConfig, options: dict[str, Any], printer: Printer) -> None:
    from ..backbones import build_backbone, is_size_name
    from ..config import CodecRecord
    from ..engine import create_patch
    from ._models import load_bare

    name = options["backbone"]
    if name is not None and options["checkpoint"] is None and is_size_name(name):
        input_size = options["image_size"] and options["image_size"] // (1 if options["vae"] == "none" else 8)
        backbone = build_backbone(name, num_classes=options["num_classes"], input_size=input_size)
    else:
        backbone = load_bare({**options, "vae": "none"} if name == "digits" else options, "cpu").backbone  # type: ignore[arg-type]
    made = create_patch(backbone, config, codec=CodecRecord(), image_size=backbone.sample_shape[1])
    _print_sizes(backbone, made, options, printer, path=None)


def _print_sizes(backbone: Any, made: Any, options: dict[str, Any], printer: Printer, *, path: Path | None) -> None:
    """Table 1's row, and a line per block."""
    total, own = backbone.num_parameters(), made.num_parameters()
    percent = 100 * own / total
    name = options["backbone"] or str(options["checkpoint"])
    printer.table(
        "Parameters (paper, Table 1)",
        ["backbone", "parameters", "patch", "per cent"],
        [[name, f"{total:,}", f"{own:,}", f"+{percent:.4f} %"]],
    )
    gate = 0 if made.gate is None else sum(p.numel() for p in made.gate.parameters())
    blocks = backbone.list_blocks()[: len(made.hidden_shapes)]
    rows = [
        [block.name, " x ".join(map(str, block.hidden_shape)), f"{p.numel():,}"]
        for block, p in zip(blocks, made.prompts, strict=True)
    ]
    rows.append(
        ["gate, shared" if gate else "no gate", f"{made.gate_width} -> {made.num_prompts}" if gate else "", f"{gate:,}"]
    )
    printer.table("", ["block", "prompts", "parameters"], rows)
    if path is not None:
        printer.say(f"wrote {path}")
    printer.result(
        {
            "backbone": name,
            "backbone_parameters": total,
            "patch_parameters": own,
            "per_cent": percent,
            "gate_parameters": gate,
            "blocks": [{"name": b.name, "hidden_shape": list(b.hidden_shape)} for b in blocks],
            "output": path and str(path),
        }
    )


def _print_info(path: Path, printer: Printer) -> None:
    from ..patchfile import read_record

    record = read_record(path)
    for line in describe(record):
        printer.say(line)
    printer.result(record.model_dump(mode="json"))


def describe(record: PatchRecord) -> list[str]:
    """A patch's header in words."""
    config, backbone, shapes = record.config, record.backbone, record.hidden_shapes
    gates = {
        "linear": f"linear gate, {config.scope} scope",
        "constant": "constant gate 1/N",
        "none": "no gate (prompt tuning)",
    }
    size = " x ".join(map(str, shapes[0])) if shapes else "0"
    return [
        f"patch      {gates[config.gate]}; {len(shapes)} blocks, prompts of {size}",
        f"backbone   {backbone.name or backbone.family} from {backbone.source}",
        f"           digest {backbone.digest}",
        f"images     {record.image_size} px, codec {record.codec.source or 'none (pixel space)'}",
        f"schedule   {record.schedule.kind}, {record.schedule.num_timesteps} timesteps",
        f"training   {_describe_training(record.training)}",
        f"format     version {record.format_version}",
    ]


def _describe_training(training: dict[str, Any] | None) -> str:
    if training is None:
        return "none yet: it changes nothing"
    averaged = f", averaged with decay {training['average']}" if "average" in training else ""
    return (
        "{method}, {steps_done} steps of {batch_size} images from {data} ({num_images} images), lr {lr}, "
        "gate lr {gate_lr}, seed {seed}".format(**training)
        + averaged
    )
