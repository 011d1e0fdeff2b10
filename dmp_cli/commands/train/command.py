"""``dmp train``: further-train a converged backbone by a patch, or by one of the baselines, through one loop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...config import (
    BackboneOptions,
    CodecOptions,
    CommonOptions,
    NetworkOptions,
    PatchConfig,
    SizeOptions,
    TextStoreOptions,
    TrainConfig,
    TrainOptions,
    default_of,
    place_name,
    preset_options,
)
from ...errors import ConfigError
from ..console import Printer
from ..options import Given, takes

if TYPE_CHECKING:
    from ...training import RunFolder

_OF_LORA = ("lora_rank", "lora_targets")


@takes(
    TrainOptions,
    TrainConfig,
    TextStoreOptions,
    PatchConfig,
    BackboneOptions,
    CodecOptions,
    SizeOptions,
    first=("backbone", "data", "output", "method", "steps", "batch_size", "lr", "image_size", "val_split", "resume"),
    examples=(
        "dmp train --backbone dit-l2 --data ffhq/ -o run",
        "dmp train --resume -o run",
    ),
)
def train(ctx: typer.Context, given: Given) -> None:
    """Train a patch for a converged backbone, on the images the backbone was trained on.

    A patch is a pool of prompts for every block, and a gate that weighs them by the timestep. Defaults are the paper's
    recipe. Converged means that more of the same training no longer improves the backbone.
    """
    from ...training import RunFolder

    common, asked = given.make(CommonOptions), given.make(TrainOptions)
    preset = {} if asked.preset is None else preset_options(asked.preset)
    run = RunFolder(asked.output or default_output({**preset, **given.values}))
    # What a run was begun with holds its preset's values already, and what was said instead of them.
    whole = given.over({**preset, **(saved_options(run, asked.preset) if asked.resume else {})})
    if "data" not in whole.values:
        raise ConfigError("no data given", hint="Name a folder of images with --data.")
    config = whole.make(TrainConfig)
    patch_config = whole.make(PatchConfig) if config.method in ("dmp", "prompt-tuning") else None
    printer = Printer(common)
    if common.dry_run:
        plan = {"train": config.model_dump(mode="json"), "patch": patch_config and patch_config.model_dump()}
        named = whole.make(NetworkOptions).backbone
        resolved = {**plan, "backbone": named, "output": str(run.path), "resume": asked.resume}
    check_method(whole, config)
    from .job import Request, run_train
    from .plan import plan_train

    network, texts, said = whole.make(NetworkOptions), whole.make(TextStoreOptions), whole.values
    request = Request(run, config, patch_config, network, asked, texts, common.device, said, ctx.obj)
    if common.dry_run:
        plan_train(request, resolved, printer)
    else:
        run_train(request, printer)


def check_method(whole: Given, config: TrainConfig) -> None:
    """Raise ConfigError for options that say nothing to the training method."""
    if config.method not in ("dmp", "prompt-tuning") and whole.of(PatchConfig):
        raise ConfigError(
            f"--method {config.method} trains no patch, so options of a patch such as --gate do not apply to it"
        )
    if config.method not in ("lora", "dora") and any(name in whole.values for name in _OF_LORA):
        raise ConfigError(f"--method {config.method} trains no adapter, so --lora-… does not apply to it")


def default_output(options: Mapping[str, Any]) -> Path:
    """runs/DATA-METHOD."""
    if options.get("data") is None:
        raise ConfigError("no folder for the run", hint="Name it with -o, or give --data to have it named after that.")
    method = options.get("method", default_of(TrainConfig, "method"))
    return Path("runs") / f"{_plain(options['data'])}-{method}"


def _plain(data: Path | str) -> str:
    """The name of a data set as a folder can have it."""
    return re.sub(r"[^\w.-]+", "-", Path(place_name(Path(data))).stem).strip("-") or "data"


def saved_options(run: RunFolder, preset: str | None) -> dict[str, Any]:
    """The options that the run was begun with; empty where there is no run yet."""
    settings = run.read_settings()
    saved = {} if settings is None else dict(settings.get("options", {}))
    if saved and preset is not None and saved.get("preset") != preset:
        raise ConfigError(
            f"{run.path} was begun with {saved.get('preset') or 'no preset'}, not with {preset}",
            hint="Leave --preset out to continue it, or start a new run with another -o.",
        )
    return saved
