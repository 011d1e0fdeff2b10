"""``dmp sample --dry-run``: everything that is checked before the first image, and what drawing would take."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import CommonOptions, TrainConfig, build, sides_of
from ...errors import DMPError
from ...storage import in_bytes
from ..console import Printer
from ..plans import UNCOUNTED, Lines, disk_for, memory_of, planning, show_plan, told_disk, told_seconds
from ..texts import Captions
from ..written import pixels_of, written_by_images
from .job import Drawing, Request
from .keeping import keeping

if TYPE_CHECKING:
    from ...runtime import World
    from ...training import Need

_TIMED = 4  # images of the chunk that is timed, at most


def plan_samples(request: Request, resolved: dict[str, Any], printer: Printer, *, measure: bool) -> None:
    """Show the plan of a set of samples: a few lines, or one JSON object. Nothing is written.

    ``resolved`` are the options as they were understood; ``measure``: whether a chunk is drawn and timed.

    Raises:
        DMPError: what the command itself would end with before its first image.
    """
    from ...runtime import World, pick_device
    from ...sampling import Part, SampleFolder

    plan = dict(resolved)
    with planning(plan, printer):
        number, total = request.options.shard
        folder = SampleFolder(request.folder, tar=request.options.tar)
        quiet = Printer(CommonOptions(quiet=True))
        device = pick_device(request.device or "auto")
        drawing = _DryDrawing(request, folder, Part(number, total), World(), device, quiet)
        folder.check(drawing.made, force=request.options.force)
        plan |= _plan_of(drawing)
        if measure:
            plan["seconds_an_image"] = _measure(drawing)
        plan["memory"] = memory_of(_count(drawing))  # last: what is counted loses its values
    show_plan(plan, _in_words(plan), printer)
    if plan["disk"]["needed"] > plan["disk"]["free"]:
        printer.warn("the disk may be too small: images take at most what is said")


class _DryDrawing(Drawing):
    """Samples that go as far as the checks do: no caption is encoded."""

    def _encode(self, recorded: dict[str, Any] | None, world: World) -> Captions:
        earlier: dict[str, Any] = {} if recorded is None else {"earlier": recorded.get("made", {}).get("text_store")}
        return Captions(self.request.texts, world=world, device=self.device, printer=self.printer, **earlier)


def _plan_of(drawing: Drawing) -> dict[str, Any]:
    """What was found, and what drawing would take, with sizes in bytes."""
    from ...latents import image_size

    config, loaded, options = drawing.config, drawing.loaded, drawing.request.options
    own = drawing.part.of(drawing.chunks)
    is_begun = drawing.folder.path.exists() and not options.force
    left = drawing.folder.missing(own, num_images=config.num_images) if is_begun else own
    todo = sum(1 for chunk in left for index in chunk if index < config.num_images)
    total = sum(1 for chunk in own for index in chunk if index < config.num_images)
    sides, channels = sides_of(image_size(loaded.codec, loaded.backbone)), loaded.codec.image_channels
    latent = 4 * math.prod(loaded.backbone.sample_shape) if drawing.keeps_latents else 0
    pixels, tar = pixels_of(loaded.backbone, loaded.codec), bool(drawing.folder.packs)
    parts = {"images": written_by_images(todo, pixels=pixels, tar=tar), "latents": todo * latent}
    parts["npz"] = config.num_images * pixels if options.npz else 0
    kinds = config.classes or drawing.plan.prompts
    return {
        "sample": config.model_dump(mode="json"),
        "device": str(drawing.device),
        "images": {
            "count": total,
            "done": total - todo,
            "size": f"{sides.width}x{sides.height}",
            "channels": channels,
            "chunks_left": len(left),
            "conditions": len(kinds) if kinds else 0,
        },
        "files": _files_of(drawing),
        "disk": disk_for(drawing.folder.path, **parts),
        "pipeline": None if drawing.own is None else drawing.own.to_json(),
    }


def _files_of(drawing: Drawing) -> list[str]:
    from ...data import ABOUT, GRID, PLAN, RECORD_SUMS, SUMS

    packs = drawing.folder.packs
    names = [ABOUT, PLAN, RECORD_SUMS, SUMS, "samples-NNNNN.tar" if packs else "NNNNNN.png", GRID]
    names += ["NNNNNN.latent.npy"] if drawing.keeps_latents and not packs else []
    return names + (["samples.npz"] if drawing.request.options.npz else [])


def _measure(drawing: Drawing) -> float:
    """Seconds of an image: one chunk of up to four, drawn and decoded, the network laid out as for the whole set."""
    from ...sampling import sample

    count = min(_TIMED, drawing.config.batch_size)
    config = drawing.config.model_copy(update={"batch_size": count, "num_images": count})
    backbone = drawing.loaded.backbone
    denoiser = backbone.eval() if drawing.request.bare else drawing.loaded.denoiser
    with keeping(drawing.keeping, drawing.loaded, drawing.versions, drawing.device):
        how: dict[str, Any] = {"plan": drawing.plan, "versions": drawing.versions, "codec": drawing.loaded.codec}
        began = time.monotonic()
        list(sample(denoiser, backbone=backbone, config=config, **how))
        return (time.monotonic() - began) / count


def _count(drawing: Drawing) -> Need | None:
    """The memory of a denoising step of a chunk, with the weights of what it is drawn against; None: uncounted."""
    from ...patching import Adapter
    from ...training import Trainee, count_loaded_sampling, passes_of

    config, loaded, how = drawing.config, drawing.loaded, drawing.keeping
    adapter = loaded.adapter if isinstance(loaded.adapter, Adapter) else None
    trainee = Trainee(loaded.denoiser, {}, [], loaded.backbone, loaded.codec, None, adapter)
    kept: dict[str, Any] = {"dtype": config.dtype, "half_frozen": how.half != "fp32" and adapter is None}
    kept |= {"quantize": how.quantize, "offload_blocks": how.offload_blocks}
    versions, own = drawing.versions, drawing.plan.prompts or drawing.plan.lines  # which may have their own guidance
    second, is_joint = (0, False) if versions is None else (versions.added_bytes, versions.is_joint)
    passes = passes_of(loaded.backbone, guidance=None if own else config.guidance, is_joint=is_joint)
    with contextlib.suppress(DMPError):
        loaded.backbone.requires_grad_(False)
        kept_as = build(TrainConfig, data=Path(), **kept)
        need = count_loaded_sampling(trainee, kept_as, images=config.batch_size, passes=passes)
        return replace(need, weights=need.weights + second, peak=need.peak + second)
    return None


def _in_words(plan: dict[str, Any]) -> Lines:
    config, images, memory, disk = plan["sample"], plan["images"], plan["memory"], plan["disk"]
    counted = UNCOUNTED
    if memory is not None:
        counted = (
            f"{in_bytes(memory['peak'])} for a denoising step: {in_bytes(memory['weights'])} weights, "
            f"{in_bytes(memory['peak'] - memory['weights'])} for {config['batch_size']:,} images; without the decoder"
        )
    return [
        ("network", _network_of(plan)),
        ("device", plan["device"]),
        ("images", _told_images(images)),
        (
            "sampler",
            f"{config['sampler']}, {config['steps']:,} steps, guidance {config['guidance']:g}, {config['dtype']}",
        ),
        ("done", f"{images['done']:,} of {images['count']:,}; {images['chunks_left']:,} chunks are left"),
        ("memory", counted),
        ("disk", "at most " + told_disk(disk, images="images", latents="latents", npz="samples.npz")),
        ("files", f"{plan['output']}: {', '.join(plan['files'])}"),
        ("time", _told_time(plan.get("seconds_an_image"), images)),
    ]


def _network_of(plan: dict[str, Any]) -> str:
    patch = plan["patch"]
    if patch is not None:
        named = " + ".join(patch) if isinstance(patch, dict) else patch
        return f"{named}, left out: the bare backbone" if plan["no_patch"] else named
    return plan["backbone"] + (f" with {plan['adapter']}" if plan["adapter"] else ", bare")


def _told_images(images: dict[str, Any]) -> str:
    colours = "grey" if images["channels"] == 1 else "RGB"
    kinds = f" of {images['conditions']:,} classes or prompts in turn" if images["conditions"] else ""
    return f"{images['count']:,} images {images['size']} {colours}{kinds}"


def _told_time(seconds: float | None, images: dict[str, Any]) -> str:
    if seconds is None:
        return "not measured; --measure draws a small chunk"
    todo = images["count"] - images["done"]
    return f"{told_seconds(seconds * todo)} for {todo:,} images, by a chunk that took {seconds:.3g} s an image"
