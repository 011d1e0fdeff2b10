"""``dmp ablate``: arms trained, sampled and scored alike over several seeds, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import GuidedChannels, PatchConfig, SampleConfig, Sampler, TrainConfig
from ..errors import ConfigError
from . import options as opt
from .console import Printer
from .in_process import in_shell, run_inside
from .options import setting

if TYPE_CHECKING:
    from ..ablation import Arm, Plan
    from ..backbones import Backbone
    from ..pipeline import Loaded

_TRAIN, _SAMPLE, _SCORE = "Training", "Sampling", "Scoring"
_SHARED = ("batch_size", "micro_batch_size", "flip", "workers", "class_dropout", "save_every")
_RESERVED = {"data", "steps", "seed", "dtype", "output", "resume", "backbone", "checkpoint", "log_every", "keep"}
_POINTS = {"table3": 5}
_PATCHED = ("dmp", "prompt-tuning")


@opt.with_options(opt.backbone, opt.backbone_sizes, opt.everywhere)
def ablate(
    ctx: typer.Context,
    arms: Annotated[
        str, typer.Argument(metavar="TABLE|ARMS.toml", help="table2, table3, table4, controls, or a file.")
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help="Images to train on.", show_default="the embedded ones, for digits")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder.", show_default="ablations/TABLE")
    ] = None,
    steps: Annotated[int | None, setting(TrainConfig, "steps", "Optimizer steps of every arm.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="How often every arm is trained.", min=1)] = 1,
    num_images: Annotated[int, typer.Option("-n", "--num-images", help="Images of every set.", min=2)] = 10_000,
    points: Annotated[
        int | None,
        typer.Option("--points", help="Scores along the training of an arm.", show_default="1; 5 for table3", min=1),
    ] = None,
    force: opt.Force = False,
    batch_size: Annotated[int | None, setting(TrainConfig, "batch_size", "Images per step.", panel=_TRAIN)] = None,
    micro_batch_size: Annotated[
        int | None, setting(TrainConfig, "micro_batch_size", "Images at a time.", panel=_TRAIN)
    ] = None,
    flip: Annotated[
        bool | None, setting(TrainConfig, "flip", "Mirror half of the images.", "--flip/--no-flip", panel=_TRAIN)
    ] = None,
    class_dropout: Annotated[
        float | None, setting(TrainConfig, "class_dropout", "Share of conditions dropped.", panel=_TRAIN)
    ] = None,
    save_every: Annotated[
        int | None, typer.Option("--save-every", help="Steps between two checkpoints.", rich_help_panel=_TRAIN)
    ] = None,
    workers: Annotated[int | None, setting(TrainConfig, "workers", "Loader processes.", panel=_TRAIN)] = None,
    sampler: Annotated[Sampler | None, setting(SampleConfig, "sampler", "How noise is removed.", panel=_SAMPLE)] = None,
    sampling_steps: Annotated[
        int | None, setting(SampleConfig, "steps", "Denoising steps.", "--sampling-steps", panel=_SAMPLE)
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="As of dmp sample.", rich_help_panel=_SAMPLE)
    ] = None,
    guidance_channels: Annotated[
        GuidedChannels | None, typer.Option("--guidance-channels", help="As of dmp sample.", rich_help_panel=_SAMPLE)
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="As of dmp sample.", rich_help_panel=_SAMPLE)
    ] = None,
    sample_batch_size: Annotated[
        int | None, typer.Option("--sample-batch-size", help="Images in one chunk.", rich_help_panel=_SAMPLE)
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="As of dmp eval.", show_default="--data", rich_help_panel=_SCORE),
    ] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", help="As of dmp eval.", rich_help_panel=_SCORE)] = None,
    features: Annotated[str | None, typer.Option("--features", help="As of dmp eval.", rich_help_panel=_SCORE)] = None,
    inception_weights: Annotated[
        Path | None, typer.Option("--inception-weights", help="As of dmp eval.", rich_help_panel=_SCORE)
    ] = None,
) -> None:
    """Train every arm over several seeds, sample all from the same noise, score them, and write one table.

    Run it again to continue where it stopped: a finished arm is not done again.
    """
    from ..ablation import AblationFolder

    printer, options = Printer(ctx.params), dict(ctx.params)
    if data is None and options["backbone"] != "digits":
        raise ConfigError("no data given", hint="Name a folder of images with --data.")
    folder = output or Path("ablations") / Path(arms).stem
    plan, inputs = _plan(arms, folder, options)
    commands = [in_shell(command) for command in plan.commands()]
    if options["dry_run"]:
        for command in commands:
            printer.say(command)
        printer.result({"commands": commands})
        return
    from ..runtime import refuse_many

    refuse_many("dmp ablate")
    owned = AblationFolder(plan, inputs)
    owned.claim(force=force)
    if data is None and not plan.data.exists():
        from ..demo import write_digits

        write_digits(plan.data)
    with printer.progress("ablate", len(commands)) as advance:
        for number, (due, done) in enumerate(owned.commands(), start=1):
            if not done:
                printer.note(in_shell(due))
                run_inside(due, ctx.find_root().command)
            advance(number, "")
    _report(plan, commands, printer)


def _plan(named: str, folder: Path, options: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """What the options ask for, and what of: looks at backbone and data, to say at once what cannot be."""
    from ..ablation import DIGITS, TABLES, Plan, in_arguments, read_arms
    from ..config import nearest

    known = (TrainConfig.model_fields.keys() | PatchConfig.model_fields.keys()) - _RESERVED
    if named in TABLES:
        arms: list[Arm] | None = None
    elif Path(named).suffix == ".toml":
        arms = read_arms(Path(named), known=known, reserved=_RESERVED)
    else:
        raise ConfigError(f"{named} is no table and no .toml file", hint=nearest(named, TABLES))
    for arm in arms or ():
        _check_options(arm, None)
    backbone, loaded = _look(options)
    digits = options["backbone"] == "digits"
    training = {key: options[key] for key in _SHARED if options[key] is not None}
    if digits:  # a mirrored digit is another one
        training.setdefault("flip", False)
    sampling = {"sampler": "sampler", "steps": "sampling_steps", "guidance": "guidance", "prompts": "prompts"}
    sampling |= {"guidance-channels": "guidance_channels", "batch-size": "sample_batch_size"}
    if options["prompts"] is not None:
        options["prompts"] = options["prompts"].resolve()
    scoring = {name: options[name] for name in ("metrics", "features", "inception_weights")}
    scoring["features"] = scoring["features"] or ("digits" if digits else None)
    data = options["data"] or folder / DIGITS
    plan = Plan(
        folder=folder,
        arms=arms if arms is not None else _named_arms(named, backbone),
        backbone=_named_backbone(options),
        data=data,
        reference=options["reference"] or data,
        steps=options["steps"] or TrainConfig.model_fields["steps"].get_default(),
        points=options["points"] or _POINTS.get(named, 1),
        seeds=range(options["seed"] or 0, (options["seed"] or 0) + options["seeds"]),
        num_images=options["num_images"],
        training=training,
        sampling=in_arguments({key: options[name] for key, name in sampling.items() if options[name] is not None}),
        scoring=in_arguments({key: value for key, value in scoring.items() if value is not None}),
        everywhere=in_arguments({"device": options["device"]} if options["device"] else {}),
        precision=in_arguments({"dtype": options["dtype"]} if options["dtype"] else {}),
    )
    for arm in plan.arms:
        _check_options(arm, backbone)
    return plan, {} if options["dry_run"] else _inputs(plan, loaded or _load(options), options)


def _look(options: dict[str, Any]) -> tuple[Backbone, Loaded | None]:
    """The backbone, its weights unread where its folder or, for --dry-run, its name tells enough."""
    from ..backbones import build_backbone, is_size_name
    from ..pipeline import check_early

    seen = check_early(options, None)
    if seen is None and options["dry_run"] and is_size_name(options["backbone"] or ""):
        seen = build_backbone(options["backbone"])
    if seen is not None:
        return seen, None
    loaded = _load(options)
    return loaded.backbone, loaded


def _load(options: dict[str, Any]) -> Loaded:
    import torch

    from ..pipeline import load_bare

    return load_bare(options, torch.device("cpu"))


def _inputs(plan: Plan, loaded: Loaded, options: dict[str, Any]) -> dict[str, Any]:
    """What is compared, by fingerprint and digest: nothing of it may change between two calls."""
    from ..data import find_images
    from ..latents import image_size
    from ..storage import sha256_of

    backbone, prompts = loaded.backbone, options["prompts"]
    assert backbone.record is not None
    data = "embedded digits" if options["data"] is None else find_images(plan.data).fingerprint
    if plan.reference == plan.data:
        reference = data
    elif plan.reference.suffix == ".npz" and plan.reference.exists():
        reference = sha256_of(plan.reference)
    else:
        reference = find_images(plan.reference).fingerprint
    return {
        "data": data,
        "reference": reference,
        "backbone": [backbone.record.digest, backbone.sizes, backbone.schedule.model_dump()],
        "codec": loaded.codec.record.digest,
        "image size": image_size(loaded.codec, backbone),
        "text encoder": backbone.captions.encoder.record.digest if backbone.takes_text else None,
        "prompts": None if prompts is None else sha256_of(prompts),
    }


def _named_arms(named: str, backbone: Backbone) -> list[Arm]:
    from ..ablation import arms_of
    from ..config import CodecRecord
    from ..patching import create_patch

    patch = create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=backbone.sample_shape[1])
    blocks = len(patch.hidden_shapes)
    return arms_of(named, num_blocks=blocks, num_prompts=patch.num_prompts, tokens=patch.grid is None)


def _named_backbone(options: dict[str, Any]) -> list[str]:
    from ..ablation import in_arguments

    names = ("backbone", "checkpoint", "vae", "image_size", "num_classes", "num_heads", "trained_with", "schedule")
    given = {name: options[name] for name in (*names, "download") if options[name] not in (None, False)}
    return in_arguments(given)


def _check_options(arm: Arm, backbone: Backbone | None) -> None:
    """Raise ConfigError, naming the arm, for options that make no run, or none of this backbone."""
    try:
        options = dict(arm.options)
        if isinstance(options.get("lora_targets"), str):
            options["lora_targets"] = tuple(options["lora_targets"].split(","))
        opt.configure(TrainConfig, options, data=Path("data"))
        own = PatchConfig.model_fields.keys() & options.keys()
        if arm.method not in _PATCHED and own:
            raise ConfigError(f"--method {arm.method} trains no patch, so {', '.join(sorted(own))} says nothing to it")
        config = opt.configure(PatchConfig, options)
        if backbone is not None and arm.method in _PATCHED:
            from ..patching import check_variant

            check_variant(backbone, config)
    except ConfigError as error:
        where = "" if arm.line is None else f" (line {arm.line})"
        raise ConfigError(f"arm {arm.name}{where}: {error.message}", hint=error.hint) from error


def _report(plan: Plan, commands: list[str], printer: Printer) -> None:
    from ..ablation import build_ablation_page, draw_pictures, notes_of, render_markdown, report_of, table_of
    from ..report import render
    from ..storage import write_bytes, write_json, write_text

    report = report_of(plan)
    pictures = draw_pictures(plan, report)
    page = render(build_ablation_page(plan, report, commands=commands, pictures=pictures))
    (plan.folder / "curves-near.png").unlink(missing_ok=True)  # of a part of the seeds, perhaps
    for name, png in pictures.items():
        write_bytes(plan.folder / name, png)
    write_text(plan.folder / "report.md", render_markdown(report))
    write_text(plan.folder / "report.html", page)
    write_json(plan.folder / "report.json", report)
    columns, rows = table_of(report)
    printer.table("Ablation", columns, rows)
    for note in notes_of(report):
        printer.say(note)
    printer.say(f"wrote {plan.folder / 'report.html'}, report.md and report.json")
    printer.result({"output": str(plan.folder), **report})
