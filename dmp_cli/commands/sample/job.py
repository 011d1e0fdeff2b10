"""What ``dmp sample`` does once its options are understood, in one process or in each of many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...config import (
    NetworkOptions,
    PlanLine,
    Prompt,
    SampleConfig,
    SampleOptions,
    SamplingMemory,
    TextStoreOptions,
)
from ...errors import ConfigError
from ..console import Printer
from ..half_range import place_of, warn_early
from ..in_process import in_shell
from ..options import Given
from ..processes import together
from .captions import captions_of, encode_early, warn_of_long
from .grid import check_grid
from .keeping import keeping, keeping_of
from .network import load, load_versions, remarks_on
from .own_sampler import compare
from .patches import PatchShare
from .provenance import as_recorded, keep_old_rules, made_as, origin_of
from .verification import check

if TYPE_CHECKING:
    import torch

    from ...pipeline import Loaded
    from ...runtime import World
    from ...sampling import Part, Plan, SampleFolder
    from ..texts import Captions

_LATENTS = "float32"  # type of the values of kept latents, in samples.json


class Request(NamedTuple):
    """One set of samples as it was asked for."""

    folder: Path
    config: SampleConfig
    lines: Sequence[PlanLine] | None  # of --plan
    prompts: Sequence[Prompt] | None  # of --prompt and --prompts
    options: SampleOptions
    texts: TextStoreOptions
    memory: SamplingMemory
    patches: tuple[PatchShare, ...]
    force_backbone: bool
    network: NetworkOptions
    device: str | None  # as named; None: auto
    given: Given

    @property
    def bare(self) -> bool:
        """Whether the images come from a backbone without a patch."""
        return self.options.no_patch or not self.patches


def run_sample(request: Request, printer: Printer) -> None:
    """Draw this process' part of the images, and complete the folder once all parts are drawn.

    The processes of one ``--shard`` share its part.
    """
    from ...sampling import Part, SampleFolder

    with together(request.device, printer) as (world, device):
        number, total = request.options.shard
        part = Part(number * world.size + world.rank, total * world.size)
        drawing = Drawing(request, SampleFolder(request.folder, tar=request.options.tar), part, world, device, printer)
        world.tell(drawing.claim)
        drawn = drawing.draw()
        world.wait()
        if world.is_first:
            drawing.complete(drawn)


class Drawing:
    """One process' share of a folder of samples."""

    def __init__(
        self, request: Request, folder: SampleFolder, part: Part, world: World, device: torch.device, printer: Printer
    ) -> None:
        import torch

        from ...sampling import Plan, chunks, fill_in, resolve

        self.request, self.folder, self.part, self.printer = request, folder, part, printer
        recorded = None if request.options.force else folder.recorded()
        self.keeping, self.device = keeping_of(request.config, request.memory, device), device
        place = place_of(tuple(share.path for share in request.patches))
        warn_early(request.config.dtype, request.network, place, printer)
        self.captions = self._encode(recorded, world)
        self.loaded = load(request, torch.device("cpu") if self.keeping.packs else device, self.captions)
        self.tiles: dict[str, Any] = {}
        if request.memory.vae_tiling or "vae_tiling" in (recorded or {}).get("made", {}):
            self.tiles["vae_tiling"] = self.loaded.codec.tile() if request.memory.vae_tiling else None
        self.own = self.loaded.backbone.own_sampling
        self.versions = load_versions(request, self.loaded, device)
        keep_old_rules(self.loaded, recorded)
        for remark in remarks_on(self.loaded, request.config.quantize):
            printer.note(remark)
        self.keeps_latents = _keeps_latents(request, self.loaded, recorded)
        filled = fill_in(as_recorded(request, recorded), self.loaded.backbone, recorded)
        if self.versions is not None and filled.against_scale is None:
            filled = filled.model_copy(update={"against_scale": 1.0})
        filled = filled.model_copy(update={"plan": Plan(filled, request.lines).digest})
        self.config = resolve(filled, self.loaded.backbone, request.prompts)
        self.plan: Plan = Plan(self.config, request.lines, request.prompts)
        self.plan.check(self.loaded.backbone)
        check_grid(request.options.grid, self.loaded)
        if self.own is not None and not self.part.number:
            printer.note(compare(self.own, self.config))
        if self.loaded.backbone.takes_text and not self.part.number:  # once for each set of samples
            warn_of_long(self.plan, self.loaded.backbone, printer)
        self.chunks = chunks(self.config)
        self.origin = origin_of(self.loaded, request, device)

    def _encode(self, recorded: dict[str, Any] | None, world: World) -> Captions:
        return encode_early(self.request, recorded, world=world, device=self.device, printer=self.printer)

    @property
    def made(self) -> dict[str, Any]:
        """All that fixes the images, as samples.json says it."""
        made = made_as(self.config, self.loaded, self.request)
        made |= {"latents": _LATENTS} if self.keeps_latents else {}
        return made | self.captions.told | self.tiles

    def claim(self) -> None:
        """Claim the folder, and write the plan before the first image."""
        how: dict[str, Any] = {"num_images": self.config.num_images, "force": self.request.options.force}
        moved = self.folder.open(self.made, origin=self.origin, **how)
        if self.folder.write_plan(lambda: self.plan.rows(self.config.num_images)):
            self.printer.warn(f"{self.folder.path}/plan.jsonl was changed after it was written; it is written anew")
        if moved:
            self.printer.warn(
                f"{self.folder.path} was begun with another {', '.join(moved)}: new pixels may differ by a level from "
                "those of an uninterrupted run"
            )

    def draw(self) -> int:
        """Draw what is missing of this process' chunks; how many chunks that were."""
        own = self.part.of(self.chunks)
        if not self.folder.missing(own, num_images=self.config.num_images):
            return 0  # the folder may be on a read-only disk
        with self.folder.own(self.part):
            self.folder.remove_halves(self.part, batch_size=self.config.batch_size)
            todo = self.folder.missing(own, num_images=self.config.num_images)
            self._draw(todo)
        return len(todo)

    def _draw(self, todo: list[range]) -> None:
        from ...runtime import explaining_memory
        from ...sampling import sample

        count, backbone = self.config.num_images, self.loaded.backbone
        if backbone.takes_text:
            self.captions.hold(backbone, captions_of(self.plan, todo))
        denoiser = backbone.eval() if self.request.bare else self.loaded.denoiser
        total = sum(1 for chunk in self.part.of(self.chunks) for index in chunk if index < count)
        done = total - sum(1 for chunk in todo for index in chunk if index < count)
        memory = explaining_memory(*_smaller_chunks(self.config.batch_size))
        with (
            memory,
            self.printer.watching(),
            keeping(self.keeping, self.loaded, self.versions, self.device),
            self.printer.progress("sample", total, done=done) as advance,
            self.folder.writer(self.part) as write,
        ):
            drawn = sample(
                denoiser,
                backbone=backbone,
                codec=self.loaded.codec,
                config=self.config,
                todo=todo,
                plan=self.plan,
                versions=self.versions,
                keep_latents=self.keeps_latents,
            )
            for images in drawn:
                latents = {image.index: image.latent for image in images if image.latent is not None}
                write({image.index: image.pixels for image in images}, latents)
                done += len(images)
                advance(done, "")

    def complete(self, drawn: int) -> None:
        """Check every image by its sum, and write what shows them all; or say what other parts have yet to draw."""
        path, count, options = self.folder.path, self.config.num_images, self.request.options
        left = self.folder.missing(self.chunks, num_images=count)
        result: dict[str, Any] = {"output": str(path), "num_images": count, "drawn_chunks": drawn}
        if self.own is not None:
            result["pipeline"] = self.own.to_json()
        if left:
            self.printer.say(
                f"this part of {path} is drawn; {len(left)} of {len(self.chunks)} chunks are left to other parts"
            )
            self.printer.result({**result, "grid": None, "missing_chunks": len(left)})
            return
        self.folder.pack(count)
        check(self.folder, count)
        rows, columns = options.grid
        shown = self.folder.draw_grid(self.plan, rows=rows, columns=columns)
        if options.npz:
            self.printer.say(f"wrote {self.folder.write_npz(count, self._labels())}")
        self.printer.say(f"wrote {count} images to {path}, {shown.name} among them")
        self.printer.say(f"next: {in_shell(['eval', '--samples', str(path), '--reference', 'REAL_IMAGES'])}")
        self.printer.result({**result, "grid": str(shown), "missing_chunks": 0})

    def _labels(self) -> Any:
        import numpy as np

        if self.plan.item(0).label is None:
            return None
        labels = (self.plan.item(index).label for index in range(self.config.num_images))
        return np.fromiter(labels, np.int64, self.config.num_images)


def _keeps_latents(request: Request, loaded: Loaded, recorded: dict[str, Any] | None) -> bool:
    """Whether latents are kept: as asked for, or as the folder was begun. Raises ConfigError where there are none."""
    if loaded.codec.record.kind != "pixel":
        return request.options.keep_latents or "latents" in (recorded or {}).get("made", {})
    if request.options.keep_latents:
        raise ConfigError(
            "--keep-latents: this backbone denoises pixels, so the images are all there is", hint="Leave it out."
        )
    return False


def _smaller_chunks(size: int) -> tuple[str, str]:
    """What to say where a chunk of ``size`` images does not fit: the message and the hint."""
    if size == 1:
        return "while drawing 1 image", "Give --dtype bf16, or another --device."
    return (
        f"while drawing {size} images at once",
        f"Give --batch-size {size // 2}, with another -o or --force where images are drawn already: the images of a "
        "chunk are drawn together, so --batch-size is part of what fixes them, and moves pixels by a level.",
    )
