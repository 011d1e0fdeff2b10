"""``dmp train``: further-train a converged backbone by a patch, or by one of the baselines, through one loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...config import BalanceLosses, Method, PatchConfig, RateSchedule, TrainConfig, preset_options
from ...errors import ConfigError
from .. import options as opt
from ..console import Printer
from ..options import setting

if TYPE_CHECKING:
    from ...training import RunFolder

_PANEL, _SPEED = "Recipe", "Speed and memory"


def _set(field: str, help: str, *names: str) -> Any:
    return setting(TrainConfig, field, help, *names, panel=_PANEL)


def _fast(field: str, help: str, *names: str) -> Any:
    return setting(TrainConfig, field, help, *names, panel=_SPEED)


@opt.with_options(opt.variant, opt.backbone, opt.backbone_sizes, opt.everywhere)
def train(
    ctx: typer.Context,
    data: Annotated[
        Path | None, typer.Option("--data", help="Images: a folder, flat or one per class, a zip, or tar shards.")
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
    from ...training import RunFolder

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
    from .job import run_train

    run_train(run, train_config, patch_config, options, printer)


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
