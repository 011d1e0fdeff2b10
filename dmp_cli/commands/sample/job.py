"""What ``dmp sample`` does once its options are understood, in one process or in each of many."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import PlanLine, SampleConfig
from ...errors import DataError
from ..console import Printer
from ..processes import together

if TYPE_CHECKING:
    from ...pipeline import Loaded
    from ...sampling import Part, Plan, SampleFolder

DEFAULT_CHUNK = 16
_TEXT_GUIDANCE = 7.5  # as the pipelines of Stable Diffusion
# Options that say which network it is, in the order in which one types them.
_GIVEN = (
    *("patch", "adapter", "backbone", "checkpoint", "vae", "download", "force_backbone"),
    *("image_size", "num_classes", "num_heads", "trained_with", "schedule"),
)
_NOT_THE_TRAINING = {"steps", "steps_done", "data", "dmp"}  # of its record: how far it went, and where things lay
_SHOWN = 5  # damaged images named in an error


def run_sample(
    wanted: SampleConfig,
    lines: tuple[PlanLine, ...] | None,
    path: Path,
    options: dict[str, Any],
    printer: Printer,
    *,
    part: tuple[int, int],
    grid: tuple[int, int],
) -> None:
    """Draw this process' part of the images, and complete the folder when it has become complete.

    ``part`` is the number of ``--shard`` (from 0) and how many there are; the processes of one share a part.
    """
    from ...sampling import Part, SampleFolder

    with together(options, printer) as (world, device):
        own = Part(part[0] * world.size + world.rank, part[1] * world.size)
        drawing = _Drawing(wanted, lines, SampleFolder(path, tar=options["tar"]), options, printer, device, own)
        world.tell(drawing.claim)
        drawn = drawing.draw()
        world.wait()
        if world.is_first:
            drawing.complete(drawn, grid)


class _Drawing:
    """One process' share of a folder of samples."""

    def __init__(
        self,
        wanted: SampleConfig,
        lines: tuple[PlanLine, ...] | None,
        folder: SampleFolder,
        options: dict[str, Any],
        printer: Printer,
        device: Any,
        part: Part,
    ) -> None:
        from ...pipeline import load_adapted, load_bare, load_patched
        from ...sampling import Plan, chunks, resolve

        self.folder, self.options, self.printer, self.part = folder, options, printer, part
        if options["adapter"]:
            loaded = load_adapted(options["adapter"], options, device)
        else:
            loaded = load_patched(options["patch"], options, device) if options["patch"] else load_bare(options, device)
        self.loaded: Loaded = loaded
        self.bare = options["no_patch"] or options["patch"] is None
        filled = _fill_in(wanted, options, loaded.backbone, folder.recorded() if not options["force"] else None)
        filled = filled.model_copy(update={"plan": Plan(filled, lines).digest})
        self.config = resolve(filled, loaded.backbone)
        self.plan: Plan = Plan(self.config, lines)
        self.plan.check(loaded.backbone)
        self.chunks = chunks(self.config)
        self.origin = _origin(loaded, options, device, bare=self.bare)

    def claim(self) -> None:
        """Claim the folder, and write the plan before the first image."""
        about = _about(self.config, self.loaded, self.options, bare=self.bare)
        count = self.config.num_images
        moved = self.folder.open(about, origin=self.origin, num_images=count, force=self.options["force"])
        self.folder.write_plan(self.plan.text(count))
        if moved:
            self.printer.warn(
                f"{self.folder.path} was begun with another {', '.join(moved)}: new pixels may differ from a straight "
                "run by a level"
            )

    def draw(self) -> int:
        """Draw what is missing of this process' chunks; how many chunks that were."""
        from ...sampling import sample

        count, backbone = self.config.num_images, self.loaded.backbone
        self.folder.remove_halves(self.part, batch_size=self.config.batch_size)
        todo = self.folder.missing(self.part.of(self.chunks), num_images=count)
        if self.bare and self.loaded.record is not None:
            self.loaded.denoiser.detach()  # type: ignore[operator]
        denoiser = backbone.eval() if self.bare else self.loaded.denoiser
        total = sum(1 for chunk in self.part.of(self.chunks) for index in chunk if index < count)
        done = total - sum(1 for chunk in todo for index in chunk if index < count)
        with self.printer.progress("sample", total, done=done) as advance, self.folder.writer(self.part) as write:
            drawn = sample(
                denoiser, backbone=backbone, codec=self.loaded.codec, config=self.config, todo=todo, plan=self.plan
            )
            for images in drawn:
                write({image.index: image.pixels for image in images})
                done += len(images)
                advance(done, "")
        return len(todo)

    def complete(self, drawn: int, grid: tuple[int, int]) -> None:
        """Check every image by its sum, and write what shows them all; or say what other parts have yet to draw."""
        path, count = self.folder.path, self.config.num_images
        left = self.folder.missing(self.chunks, num_images=count)
        result: dict[str, Any] = {"output": str(path), "num_images": count, "drawn_chunks": drawn}
        if left:
            self.printer.say(f"this part of {path} is drawn; {len(left)} of {len(self.chunks)} chunks are yet to come")
            self.printer.result({**result, "grid": None, "missing_chunks": len(left)})
            return
        self.folder.pack(count)
        check(self.folder, count)
        shown = self.folder.draw_grid(self.plan, rows=grid[0], columns=grid[1])
        if self.options["npz"]:
            self.printer.say(f"wrote {self.folder.write_npz(count, self._labels())}")
        self.printer.say(f"wrote {count} images to {path}, {shown.name} among them")
        self.printer.result({**result, "grid": str(shown), "missing_chunks": 0})

    def _labels(self) -> Any:
        import numpy as np

        labels = [self.plan.item(index).label for index in range(self.config.num_images)]
        return None if labels[0] is None else np.array(labels, np.int64)


def check(folder: SampleFolder, count: int) -> None:
    """Raise DataError, naming them, when images are missing, changed since they were written, or foreign."""
    wrong = folder.verify(count)
    if wrong:
        named = "; ".join(wrong[:_SHOWN]) + ("; ..." if len(wrong) > _SHOWN else "")
        raise DataError(
            f"{len(wrong)} files in {folder.path} are not as they should be: {named}",
            hint="Remove them and run the same command again: what is missing is drawn anew.",
        )


def run_verify(path: Path, asked: int | None, printer: Printer) -> None:
    """Check the images 0..n-1 of a folder by their sums; None: as many as it was begun for."""
    from ...sampling import SampleFolder

    folder = SampleFolder(path)
    recorded = folder.recorded()
    if recorded is None:
        raise DataError(f"{folder.path} holds no samples of this tool", hint="Give the folder with -o.")
    count = asked or int(recorded["num_images"])
    check(folder, count)
    printer.say(f"{count} images in {folder.path} are as they were written")
    printer.result({"output": str(folder.path), "num_images": count, "verified": True})


def _fill_in(
    wanted: SampleConfig, options: dict[str, Any], backbone: Any, recorded: dict[str, Any] | None
) -> SampleConfig:
    """Defaults that depend on the backbone, on -n, and on the chunks that an earlier call has fixed."""
    changes: dict[str, Any] = {}
    if options["guidance"] is None:
        changes["guidance"] = 1.0 if not backbone.has_null else _TEXT_GUIDANCE if backbone.takes_text else 1.5
    if options["guidance_channels"] is None:
        changes["guidance_channels"] = "3" if backbone.family == "dit" and backbone.sample_shape[0] == 4 else "all"
    if options["batch_size"] is None:
        earlier = (recorded or {}).get("made", {}).get("sample", {}).get("batch_size")
        changes["batch_size"] = earlier or min(DEFAULT_CHUNK, wanted.num_images)
    return wanted.model_copy(update=changes)


def _about(config: SampleConfig, loaded: Any, options: dict[str, Any], *, bare: bool) -> dict[str, Any]:
    """All that fixes the samples."""
    from ...latents import image_size
    from ...patching import ADAPTER_TENSORS
    from ...storage import sha256_of

    return {
        "sample": config.model_dump(mode="json", exclude={"num_images"}),
        "patch": None if bare else sha256_of(options["patch"]),
        "adapter": sha256_of(options["adapter"] / ADAPTER_TENSORS) if options["adapter"] else None,
        "backbone": loaded.backbone.record.model_dump(mode="json", include={"family", "sizes", "digest"}),
        "schedule": loaded.backbone.schedule.model_dump(),
        "codec": loaded.codec.record.model_dump(include={"kind", "digest"}),
        "image_size": image_size(loaded.codec, loaded.backbone),
        "text": loaded.backbone.captions.encoder.record.digest if loaded.backbone.takes_text else None,
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _trained(record: Any) -> dict[str, Any] | None:
    """Which training a patch comes from, and how far that had come, for scores over steps; None: it does not say."""
    if record is None or not record.training:
        return None
    told = {key: value for key, value in record.training.items() if key not in _NOT_THE_TRAINING}
    content = json.dumps([told, record.config.model_dump(mode="json")], sort_keys=True)
    name = f"{told.get('method')}, seed {told.get('seed')}" + (", averaged" if "average" in told else "")
    return {
        "steps": record.training.get("steps_done", 0),
        "training": hashlib.sha256(content.encode()).hexdigest(),
        "name": name,
    }


def _origin(loaded: Any, options: dict[str, Any], device: Any, *, bare: bool) -> dict[str, Any]:
    """Where and with what they were made."""
    from ...sampling import versions

    return {
        "device": device.type,
        "versions": versions(),
        "given": {name: _plain(options[name]) for name in _GIVEN if options[name] not in (None, False)},
        "trained": None if bare else _trained(loaded.record),
        "backbone": loaded.backbone.record.source,
        "codec": loaded.codec.record.source,
    }
