"""``dmp train``: further-train a converged backbone by a patch, or by one of the baselines, through one loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import BalanceLosses, Method, PatchConfig, Prompt, RateSchedule, TrainConfig
from ..errors import ConfigError
from ..presets import preset_options
from . import _options as opt
from ._console import Printer
from ._options import setting

if TYPE_CHECKING:
    import torch

    from ..imagesource import ImageSource
    from ..methods import Trainee
    from ..parallel import World
    from ..runfolder import RunFolder
    from ._watchers import Watchers

_PANEL, _SPEED = "Recipe", "Speed and memory"
# What says how a command runs, not what it makes: a continued run takes it anew.
_PASSING = (
    "resume",
    "force",
    "json",
    "verbose",
    "quiet",
    "dry_run",
    "config",
    "output",
    "device",
    "download",
    "tensorboard",
    "store_dir",
)


def _set(field: str, help: str, *names: str) -> Any:
    return setting(TrainConfig, field, help, *names, panel=_PANEL)


def _fast(field: str, help: str, *names: str) -> Any:
    return setting(TrainConfig, field, help, *names, panel=_SPEED)


@opt.with_options(opt.variant, opt.backbone, opt.backbone_sizes, opt.everywhere)
def train(
    ctx: typer.Context,
    data: Annotated[
        Path | None, typer.Option("--data", help="Images: a folder, flat or one per class, or a zip.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder.", show_default="runs/DATA-METHOD")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", help="An experiment of the paper: paper-ffhq-b2, paper-ffhq-l2, paper-coco-b2, paper-sd15."
        ),
    ] = None,
    method: Annotated[Method | None, setting(TrainConfig, "method", "What is trained, and how.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in -o; other options may be left out.")
    ] = False,
    force: opt.Force = False,
    steps: Annotated[int | None, _set("steps", "Optimizer steps.")] = None,
    batch_size: Annotated[int | None, _set("batch_size", "Images per step.")] = None,
    micro_batch_size: Annotated[int | None, _set("micro_batch_size", "Images at a time; gradients accumulate.")] = None,
    lr: Annotated[float | None, _set("lr", "Learning rate of the prompts, adapter, or all weights.")] = None,
    gate_lr: Annotated[float | None, _set("gate_lr", "Learning rate of the gate.")] = None,
    lora_rank: Annotated[int | None, _set("lora_rank", "Of LoRA's updates; alpha is the same.")] = None,
    lora_targets: Annotated[
        str | None,
        typer.Option(
            "--lora-targets",
            help="Linear layers of every block, such as qkv,proj.",
            show_default="attention and MLP",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    weight_decay: Annotated[float | None, _set("weight_decay", "AdamW's weight decay.")] = None,
    lr_schedule: Annotated[RateSchedule | None, _set("lr_schedule", "Of all rates; cosine ends at 0.")] = None,
    warmup: Annotated[int | None, _set("warmup", "Steps of linear warm-up.")] = None,
    balance_importance: Annotated[float | None, _set("balance_importance", "Weight of the importance loss.")] = None,
    balance_load: Annotated[float | None, _set("balance_load", "Weight of the load loss.")] = None,
    balance_losses: Annotated[
        BalanceLosses | None, _set("balance_losses", "As the paper says, or as the authors' code computes them.")
    ] = None,
    gate_noise: Annotated[
        bool | None,
        _set("gate_noise", "The authors' noise on the gate's logits while it trains.", "--gate-noise/--no-gate-noise"),
    ] = None,
    ema: Annotated[float | None, _set("ema", "Decay of an average of what is trained; 0: none.")] = None,
    class_dropout: Annotated[float | None, _set("class_dropout", "Share of labels replaced by the null class.")] = None,
    flip: Annotated[bool | None, _set("flip", "Mirror half of the images.", "--flip/--no-flip")] = None,
    log_every: Annotated[int | None, _set("log_every", "Steps between two lines of log.jsonl.")] = None,
    save_every: Annotated[int | None, _set("save_every", "Steps between two checkpoints.")] = None,
    sample_every: Annotated[int | None, _set("sample_every", "Steps between two sample grids; 0: none.")] = None,
    keep: Annotated[int | None, _set("keep", "Newest checkpoints kept.")] = None,
    workers: Annotated[int | None, _set("workers", "Processes that load images.")] = None,
    max_bad: Annotated[int | None, _set("max_bad", "Unreadable images allowed before the run stops.")] = None,
    max_bad_steps: Annotated[
        int | None, _set("max_bad_steps", "Steps in a row skipped for a loss that is not finite, before the run stops.")
    ] = None,
    latent_store: Annotated[
        bool | None,
        typer.Option(
            "--latent-store/--no-latent-store",
            help="Encode all images once, and keep the latents; or encode live.",
            show_default="where it saves work",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    store_dir: Annotated[
        Path | None,
        typer.Option(
            "--store-dir",
            help="The latent store's folder.",
            show_default="in $DMP_HOME/latents",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    half_frozen: Annotated[
        bool | None,
        _fast("half_frozen", "With bf16 or fp16, keep frozen weights in it.", "--half-frozen/--no-half-frozen"),
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        _fast(
            "gradient_checkpointing",
            "Compute blocks again in the backward: less memory, more time.",
            "--gradient-checkpointing/--no-gradient-checkpointing",
        ),
    ] = None,
    compile: Annotated[bool | None, _fast("compile", "Compile the denoiser.", "--compile/--no-compile")] = None,
    shard_backbone: Annotated[
        bool | None,
        _fast(
            "shard_backbone",
            "Spread the frozen weights over the processes (FSDP2).",
            "--shard-backbone/--no-shard-backbone",
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events too.")] = False,
) -> None:
    """Train a patch on the data its backbone was trained on. Defaults are the paper's recipe."""
    from ..runfolder import RunFolder

    printer = Printer(ctx.params)
    given = {key: value for key, value in ctx.params.items() if value is not None}
    wanted = {} if preset is None else preset_options(preset)
    run = RunFolder(output or default_output({**wanted, **given}))
    saved = _saved_options(run) if resume else {}
    if saved and preset is not None and saved.get("preset") != preset:
        raise ConfigError(
            f"{run.path} was begun with {saved.get('preset') or 'no preset'}, not with {preset}",
            hint="Leave --preset out to continue it, or start a new run with another -o.",
        )
    # What a run was begun with holds its preset's values already, and what was said instead of them.
    options = {**wanted, **saved, **given}
    if "data" not in options:
        raise ConfigError("no data given", hint="Name a folder of images with --data.")
    train_config = opt.configure(TrainConfig, options, lora_targets=_parse_targets(options.get("lora_targets")))
    patch_config = opt.configure(PatchConfig, options) if train_config.method in ("dmp", "prompt-tuning") else None
    if options["dry_run"]:
        plan = {"train": train_config.model_dump(mode="json"), "patch": patch_config and patch_config.model_dump()}
        printer.plan({**plan, "backbone": options.get("backbone"), "output": str(run.path), "resume": resume})
        return
    if patch_config is None and PatchConfig.model_fields.keys() & options.keys():
        raise ConfigError(
            f"--method {train_config.method} trains no patch, so options of a patch such as --gate say nothing to it"
        )
    if train_config.method != "lora" and {"lora_rank", "lora_targets"} & options.keys():
        raise ConfigError(f"--method {train_config.method} trains no adapter, so --lora-… says nothing to it")
    _run(run, train_config, patch_config, options, printer)


def _run(
    run: RunFolder, config: TrainConfig, patch_config: PatchConfig | None, options: dict[str, Any], printer: Printer
) -> None:
    from ..devices import pick_device
    from ..parallel import find_world

    world = find_world()
    device = pick_device(world.own_device(options.get("device", "auto")))
    if not world.is_first:
        printer.quiet, printer.as_json = True, False
    with world.connected(device), world.speaking():
        _run_in(world, device, run, config, patch_config, options, printer)


def _run_in(
    world: World,
    device: torch.device,
    run: RunFolder,
    config: TrainConfig,
    patch_config: PatchConfig | None,
    options: dict[str, Any],
    printer: Printer,
) -> None:
    from torch import device as torch_device

    from ..images import find_images
    from ..methods import check_noise, prepare
    from ..signals import StopRequest
    from ..training import check_captions, check_conditions
    from ..training import train as run_training
    from ._models import build_fresh, check_early, load_bare
    from ._stores import fill_store, find_store
    from ._watchers import Watchers, tensorboard_writer

    writer = tensorboard_writer() if options["tensorboard"] and world.is_first else None
    world.share(config.batch_size)
    if config.shard_backbone:
        world.check_spread()
    images = find_images(config.data)
    if patch_config is not None:
        check_noise(config, patch_config)
    early = check_early(options, patch_config)
    if early is not None:
        check_captions(images, early)
    at_first = torch_device("cpu") if config.shard_backbone else device  # then no device ever holds all of it
    if config.method == "scratch":
        loaded = build_fresh(options, at_first, data_classes=len(images.classes), seed=config.seed)
    else:
        loaded = load_bare(options, at_first)
    check_conditions(images, loaded.backbone)
    trainee = prepare(config, backbone=loaded.backbone, codec=loaded.codec, patch_config=patch_config)
    store = find_store(images, trainee, config)
    settings = _settings(config, patch_config, loaded, options)
    settings["images"] = {"fingerprint": images.fingerprint, "count": len(images)}
    world.agree({name: value for name, value in settings.items() if name != "options"})
    world.tell(lambda: run.open(settings, resume=options["resume"], force=options["force"]))
    state = world.tell(lambda: run.load_state(warn=printer.warn) if options["resume"] else None)
    if state is not None:
        printer.note(f"continuing {run.path} after step {state.step}")
    count, processes = sum(p.numel() for p in trainee.learnt.values()), f", {world.size} processes" * (world.size > 1)
    printer.note(
        f"{config.method}: {count:,} parameters learnt, {len(images):,} images, {device}, {config.dtype}{processes}"
    )
    with StopRequest() as request:
        if store is not None:
            fill_store(store, images, trainee, config, device, printer, request)
        events = writer and writer(str(run.path / "tensorboard"))
        watchers = Watchers(run, trainee, config, printer, writer=events, world=world)
        watchers.prompts = _first_captions(images) if loaded.backbone.takes_text else None
        done = state.step if state else 0
        with printer.progress("train", config.steps, done=done) as advance:
            for event in run_training(
                trainee,
                images=images,
                config=config,
                run=run,
                state=state,
                stop=lambda: request.number,
                store=store,
                world=world,
                device=device,
            ):
                watchers.see(event)
                advance(event.step, watchers.remark)
    if world.is_first:
        _report(run, trainee, config, watchers, printer)


def _parse_targets(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(","))


def default_output(options: dict[str, Any]) -> Path:
    """runs/DATA-METHOD."""
    data, method = options.get("data"), options.get("method", TrainConfig.model_fields["method"].default)
    if data is None:
        raise ConfigError("neither -o nor --data given", hint="Name the run's folder with -o.")
    return Path("runs") / f"{Path(data).stem}-{method}"


def _saved_options(run: RunFolder) -> dict[str, Any]:
    settings = run.read_settings()
    if settings is None:
        return {}
    saved = dict(settings.get("options", {}))
    return {key: Path(value) if key in ("data", "checkpoint") else value for key, value in saved.items()}


def _settings(
    config: TrainConfig, patch_config: PatchConfig | None, loaded: Any, options: dict[str, Any]
) -> dict[str, Any]:
    """The resolved config.json: what was asked for, and what it came to."""
    record = loaded.backbone.record
    return {
        "options": {key: _absolute(key, value) for key, value in options.items() if key not in _PASSING},
        "train": config.model_dump(mode="json"),
        "patch": patch_config and patch_config.model_dump(),
        "backbone": record.model_dump(exclude={"source"}) if record else {"sizes": loaded.backbone.sizes},
        "codec": loaded.codec.record.model_dump(exclude={"source"}),
    }


def _absolute(key: str, value: Any) -> Any:
    """A path as it can be found from any folder; everything else as it is."""
    if key == "lora_targets":  # a layer's name, even where a file is called the same
        return value
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).exists()):
        return str(Path(value).resolve())
    return value


def _first_captions(images: ImageSource) -> tuple[Prompt, ...]:
    return tuple(Prompt(text=images.caption(index)) for index in range(min(16, len(images))))


def _report(run: RunFolder, trainee: Trainee, config: TrainConfig, watchers: Watchers, printer: Printer) -> None:
    written = run.learnt_file(trainee)
    printer.say(f"wrote {written}" + (f" and {run.learnt_file(trainee, ema=True).name}" if config.ema else ""))
    if watchers.bad:
        printer.warn(f"{watchers.bad} unreadable images were skipped")
    printer.result(
        {
            "output": str(written),
            "run": str(run.path),
            "steps": config.steps,
            "skipped_images": watchers.bad,
            "last": watchers.last_line,
        }
    )
