"""``dmp train``: further-train a converged backbone by a patch, or by one of the baselines, through one loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import Method, PatchConfig, RateSchedule, SampleConfig, TrainConfig
from ..errors import ConfigError
from . import _options as opt
from ._console import Printer
from ._options import setting

if TYPE_CHECKING:
    from ..methods import Trainee
    from ..runfolder import RunFolder
    from ..training import Progress

_PANEL = "Recipe"
_NOT_OPTIONS = {
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
}
_GRID = SampleConfig(num_images=16, batch_size=16, steps=50)


def _set(field: str, help: str, *names: str) -> Any:
    return setting(TrainConfig, field, help, *names, panel=_PANEL)


def train(
    ctx: typer.Context,
    backbone: opt.BackboneName = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Images: a folder, flat or one per class, or a zip.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder.", show_default="runs/DATA-METHOD")
    ] = None,
    method: Annotated[Method | None, setting(TrainConfig, "method", "What is trained, and how.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in -o; other options may be left out.")
    ] = False,
    force: opt.Force = False,
    gate: opt.Gate = None,
    scope: opt.Scope = None,
    depth: opt.Depth = None,
    steps: Annotated[int | None, _set("steps", "Optimizer steps.")] = None,
    batch_size: Annotated[int | None, _set("batch_size", "Images per step.")] = None,
    micro_batch_size: Annotated[int | None, _set("micro_batch_size", "Images at a time; gradients accumulate.")] = None,
    lr: Annotated[float | None, _set("lr", "Learning rate of the prompts, or of all weights.")] = None,
    gate_lr: Annotated[float | None, _set("gate_lr", "Learning rate of the gate.")] = None,
    weight_decay: Annotated[float | None, _set("weight_decay", "AdamW's weight decay.")] = None,
    lr_schedule: Annotated[RateSchedule | None, _set("lr_schedule", "Of all rates; cosine ends at 0.")] = None,
    warmup: Annotated[int | None, _set("warmup", "Steps of linear warm-up.")] = None,
    balance_importance: Annotated[float | None, _set("balance_importance", "Weight of the importance loss.")] = None,
    balance_load: Annotated[float | None, _set("balance_load", "Weight of the load loss.")] = None,
    ema: Annotated[float | None, _set("ema", "Decay of an average of what is trained; 0: none.")] = None,
    class_dropout: Annotated[float | None, _set("class_dropout", "Share of labels replaced by the null class.")] = None,
    flip: Annotated[bool | None, _set("flip", "Mirror half of the images.", "--flip/--no-flip")] = None,
    log_every: Annotated[int | None, _set("log_every", "Steps between two lines of log.jsonl.")] = None,
    save_every: Annotated[int | None, _set("save_every", "Steps between two checkpoints.")] = None,
    sample_every: Annotated[int | None, _set("sample_every", "Steps between two sample grids; 0: none.")] = None,
    keep: Annotated[int | None, _set("keep", "Newest checkpoints kept.")] = None,
    workers: Annotated[int | None, _set("workers", "Processes that load images.")] = None,
    max_bad: Annotated[int | None, _set("max_bad", "Unreadable images allowed before the run stops.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events too.")] = False,
    checkpoint: opt.Checkpoint = None,
    vae: opt.Vae = None,
    image_size: opt.ImageSize = None,
    num_classes: opt.NumClasses = None,
    num_heads: opt.NumHeads = None,
    trained_with: opt.TrainedWith = None,
    schedule: opt.NoiseSchedule = None,
    download: opt.Download = False,
    device: opt.Device = None,
    dtype: opt.Precision = None,
    seed: opt.Seed = None,
    config: opt.ConfigFile = None,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
    verbose: opt.Verbose = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train a patch on the data its backbone was trained on. Defaults are the paper's recipe."""
    from ..runfolder import RunFolder

    printer = Printer(ctx.params)
    given = {key: value for key, value in ctx.params.items() if value is not None}
    run = RunFolder(output or default_output(given))
    options = {**(_saved_options(run) if resume else {}), **given}
    if "data" not in options:
        raise ConfigError("no data given", hint="Name a folder of images with --data.")
    train_config = opt.configure(TrainConfig, options)
    patch_config = opt.configure(PatchConfig, options) if train_config.method in ("dmp", "prompt-tuning") else None
    if dry_run:
        plan = {"train": train_config.model_dump(mode="json"), "patch": patch_config and patch_config.model_dump()}
        printer.plan({**plan, "backbone": options.get("backbone"), "output": str(run.path), "resume": resume})
        return
    if patch_config is None and {"gate", "scope", "depth"} & options.keys():
        raise ConfigError(
            f"--method {train_config.method} trains no patch; --gate, --scope and --depth say nothing to it"
        )
    _run(run, train_config, patch_config, options, printer)


def _run(
    run: RunFolder, config: TrainConfig, patch_config: PatchConfig | None, options: dict[str, Any], printer: Printer
) -> None:
    from ..devices import pick_device
    from ..images import find_images
    from ..methods import prepare
    from ..signals import StopRequest
    from ..training import check_classes
    from ..training import train as run_training

    device = pick_device(options.get("device", "auto"))
    if options["tensorboard"]:
        _tensorboard_writer()
    images = find_images(config.data)
    loaded = _load_or_build(config, options, len(images.classes), device)
    check_classes(images, loaded.backbone)
    trainee = prepare(config, backbone=loaded.backbone, codec=loaded.codec, patch_config=patch_config)
    run.open(_settings(config, patch_config, loaded, options), resume=options["resume"], force=options["force"])
    state = run.load_state(warn=printer.warn) if options["resume"] else None
    if state is not None:
        printer.note(f"continuing {run.path} after step {state.step}")
    count = sum(p.numel() for p in trainee.learnt.values())
    printer.note(f"{config.method}: {count:,} parameters learnt, {len(images):,} images, {device}, {config.dtype}")
    watchers = _Watchers(run, trainee, config, printer, tensorboard=options["tensorboard"])
    done = state.step if state else 0
    with StopRequest() as request, printer.progress("train", config.steps, done=done) as advance:
        for event in run_training(
            trainee, images=images, config=config, run=run, state=state, stop=lambda: request.number
        ):
            watchers.see(event)
            advance(event.step, watchers.remark)
    _report(run, trainee, config, watchers, printer)


class _Watchers:
    """What else happens as a run goes on: bad images named, curves, sample grids."""

    def __init__(
        self, run: RunFolder, trainee: Trainee, config: TrainConfig, printer: Printer, *, tensorboard: bool
    ) -> None:
        self.run, self.trainee, self.config, self.printer = run, trainee, config, printer
        self.bad = 0
        self.remark = ""
        self.last_line: dict[str, Any] = {}
        self.writer = _tensorboard_writer()(str(run.path / "tensorboard")) if tensorboard else None

    def see(self, event: Progress) -> None:
        for message in event.bad:
            self.bad += 1
            self.printer.warn(f"skipped: {message}")
            self.run.log({"step": event.step, "skipped": message})
        if event.line is not None:
            self.last_line = event.line
            self.remark = f"loss {event.line['loss']:.4f}  {event.line['images_per_second']:.1f} images/s"
            if self.writer is not None:
                for name, value in event.line.items():
                    self.writer.add_scalar(name, value, event.step)
                self.writer.flush()
        if self.config.sample_every and event.step % self.config.sample_every == 0:
            self._draw(event.step)

    def _draw(self, step: int) -> None:
        from ..files import write_bytes
        from ..mosaic import image_grid
        from ..sampling import resolve, sample

        backbone = self.trainee.backbone
        config = _GRID.model_copy(update={"guidance": 1.5 if backbone.has_null else 1.0, "seed": self.config.seed})
        (images,) = sample(
            self.trainee.denoiser, backbone=backbone, codec=self.trainee.codec, config=resolve(config, backbone)
        )
        write_bytes(
            self.run.samples / f"step-{step:08d}.png", image_grid([i.pixels for i in images], rows=4, columns=4)
        )


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
    asked = {key: value for key, value in options.items() if key not in _NOT_OPTIONS}
    return {
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in asked.items()},
        "train": config.model_dump(mode="json"),
        "patch": patch_config and patch_config.model_dump(),
        "backbone": record.model_dump(exclude={"source"}) if record else {"sizes": loaded.backbone.sizes},
        "codec": loaded.codec.record.model_dump(exclude={"source"}),
    }


def _load_or_build(config: TrainConfig, options: dict[str, Any], data_classes: int, device: Any) -> Any:
    from ._models import load_bare

    if config.method != "scratch":
        return load_bare(options, device)
    return _build(config, options, data_classes, device)


def _build(config: TrainConfig, options: dict[str, Any], data_classes: int, device: Any) -> Any:
    """A backbone with fresh weights, its classes those of the data and its size that of --image-size."""
    from ..backbones import build_backbone
    from ..codec import load_codec
    from ..config import ScheduleConfig, build
    from ._models import Loaded, check_image_size

    if options.get("backbone") is None:
        raise ConfigError("no backbone given", hint="Name its sizes with --backbone: dit-s2 … dit-xl8 or a .json file.")
    pixels, size = options.get("vae") == "none", options.get("image_size")
    sizes_file = str(options["backbone"]).endswith(".json")
    backbone = build_backbone(
        options["backbone"],
        device="cpu",
        num_classes=options.get("num_classes") or (None if sizes_file else max(data_classes, 1)),
        input_size=size and (size if pixels else size // 8),
        in_channels=3 if pixels and not sizes_file else None,
    )
    backbone.initialise(seed=config.seed)
    if options.get("schedule"):
        backbone.schedule = build(ScheduleConfig, kind=options["schedule"])
    backbone = backbone.to(device)
    codec = load_codec(options.get("vae"), backbone, download=options.get("download", False))
    check_image_size(size, backbone, codec)
    return Loaded(backbone, codec, backbone, None)


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("--tensorboard needs TensorBoard", hint="pip install 'dmp-cli[tensorboard]'") from error
    return SummaryWriter


def _report(run: RunFolder, trainee: Trainee, config: TrainConfig, watchers: _Watchers, printer: Printer) -> None:
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
