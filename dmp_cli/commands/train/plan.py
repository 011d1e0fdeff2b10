"""``dmp train --dry-run``: everything that a run checks before its first file, and what the run would take."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...config import CommonOptions, TextStoreOptions
from ...errors import ConfigError, DMPError
from ...storage import in_bytes, whole_json_lines
from ..console import Printer
from ..plans import UNCOUNTED, disk_for, memory_of, planning, show_plan, told_disk, told_seconds
from ..written import written_by_run
from .job import Job, Request, run_train

if TYPE_CHECKING:
    from ...training import Need

_TIMED = 5  # steps, after a first one that also begins things up


def plan_train(request: Request, resolved: dict[str, Any], printer: Printer) -> None:
    """Show the plan of a run: a few lines, or one JSON object. Nothing is written.

    ``resolved`` are the options as they were understood.

    Raises:
        DMPError: what the run itself would end with before its first step; as far as it was understood, the plan is
            shown all the same.
    """
    from ...runtime import World, pick_device

    plan = dict(resolved)
    with planning(plan, printer), printer.watching():
        job = _DryJob(request, World(), pick_device(request.device or "auto"), Printer(CommonOptions(quiet=True)))
        plan |= _plan_of(job)
        if request.options.measure:
            plan["seconds_a_step"] = _measure(request)
    show_plan(plan, _in_words(plan), printer)
    if plan["disk"]["needed"] > plan["disk"]["free"]:
        raise ConfigError(
            f"the disk of {request.run.path} has {in_bytes(plan['disk']['free'])}, and the run takes "
            f"{in_bytes(plan['disk']['needed'])} for checkpoints and latents",
            hint="Give another -o or --store-dir.",
        )


class _DryJob(Job):
    """A run that goes as far as its checks do: no caption is encoded."""

    def _load_with_captions(self) -> None:
        from ...backbones import BlankCaptions

        self.loaded = self.load()
        if self.loaded.backbone.takes_text:
            self.loaded.backbone.take_captions(cast(Any, BlankCaptions(self.loaded.backbone)))
            self.loaded.backbone.record = None  # a patch that is only planned describes no encoders

    def _settings(self) -> dict[str, Any]:
        return {}  # nothing is written


def _plan_of(job: Job) -> dict[str, Any]:
    """What was found, and what the run would take, with sizes in bytes."""
    config, trainee = job.config, job.trainee
    learnt = trainee.num_learnt
    rows = [(len(store.record.span(n)), store.record.row_bytes) for store, _ in job.stores for n in store.missing()]
    latents = sum(count * size for count, size in rows)
    written = written_by_run(config, learnt=learnt)
    disk = {"checkpoints": written.checkpoints + written.spare, "latents": latents, "learnt": written.learnt}
    need = _count(job)
    found: dict[str, Any] = {
        "device": str(job.device),
        "images": {
            "count": len(job.images),
            "trained_on": len(job.parts.training),
            "held_out": 0 if job.parts.held_out is None else len(job.parts.held_out[0]),
            "looks": job.looks,
            "classes": len(job.images.classes),
        },
        "parameters": learnt,
        "files": _files_of(job),
        "disk": disk_for(job.run.path, **disk),
        "memory": memory_of(need),
    }
    return found


def _count(job: Job) -> Need | None:
    """The memory of a step; None where it cannot be counted."""
    from ...training import count_loaded

    with contextlib.suppress(DMPError):
        return count_loaded(job.trainee, job.config)
    return None


def _files_of(job: Job) -> list[str]:
    """What the run's folder will hold, in the words of its files and folders."""
    config, run = job.config, job.run
    names = ["config.json", "run.toml", "log.jsonl", run.learnt_file(job.trainee).name]
    names += [run.learnt_file(job.trainee, ema=True).name] if config.ema else []
    names += ["checkpoints/"]
    names += ["samples/"] if config.sample_every and config.steps >= config.sample_every else []
    return names + (["held-out.html"] if config.holds_out else [])


def _measure(request: Request) -> float:
    """Seconds of a step: the mean of five, in a run of its own whose folder is removed.

    Images and captions are encoded as they come, so that no store is begun: with stores, steps take less.
    """
    from ...training import RunFolder

    changes: dict[str, Any] = {"steps": _TIMED + 1, "log_every": 1, "save_every": _TIMED + 1, "sample_every": 0}
    changes |= {"val_data": None, "val_split": 0.0, "latent_store": False}
    with tempfile.TemporaryDirectory(prefix="dmp-measure-") as place:
        run = RunFolder(Path(place) / "run")
        config = request.config.model_copy(update=changes)
        options = request.options.model_copy(update={"resume": False, "tensorboard": False, "track": ()})
        texts = TextStoreOptions(text_store=False)  # which would encode all captions first, and keep them
        run_train(
            request._replace(run=run, config=config, options=options, texts=texts), Printer(CommonOptions(quiet=True))
        )
        lines = [line for _, _, line in whole_json_lines(run.log_file, drop=lambda number: None)]
        speeds = [line["images_per_second"] for line in lines if line["step"] > 1]
    return config.batch_size * sum(1 / speed for speed in speeds) / len(speeds)


def _in_words(plan: dict[str, Any]) -> list[tuple[str, str]]:
    train, images, disk, memory = plan["train"], plan["images"], plan["disk"], plan["memory"]
    held = f"; {images['held_out']:,} held out" if images["held_out"] else ""
    counted = UNCOUNTED
    if memory is not None:
        rest = memory["peak"] - memory["weights"] - memory["learnt"]
        images_at_once = train["micro_batch_size"] or train["batch_size"]
        counted = (
            f"{in_bytes(memory['peak'])}: {in_bytes(memory['weights'])} weights, {in_bytes(memory['learnt'])} learnt "
            f"with its optimizer, {in_bytes(rest)} for {images_at_once:,} images"
        )
    return [
        ("run", f"{train['method']}, {train['steps']:,} steps of {train['batch_size']:,} images, {train['dtype']}"),
        ("device", plan["device"]),
        ("images", images["looks"] + held),
        ("learnt", f"{plan['parameters']:,} parameters"),
        ("memory", counted),
        ("disk", told_disk(disk, checkpoints="checkpoints", latents="the latent store")),
        ("files", f"{plan['output']}: {', '.join(plan['files'])}"),
        ("time", _told_time(plan.get("seconds_a_step"), train["steps"])),
    ]


def _told_time(seconds: float | None, steps: int) -> str:
    if seconds is None:
        return "not measured; --measure times five steps"
    return f"{told_seconds(seconds * steps)}, by five steps of {seconds:.3g} s"
