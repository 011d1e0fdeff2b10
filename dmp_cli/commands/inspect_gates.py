"""``dmp inspect-gates``: what a patch's gate does over timesteps and blocks, in numbers and pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..config import (
    BackboneOptions,
    CodecOptions,
    CommonOptions,
    InspectOptions,
    NetworkOptions,
    PatchedOptions,
)
from ..errors import ConfigError
from .console import Printer
from .gates_over_time import gap_to, square_grid, weights_over_time
from .gates_plan import plan_gates
from .named_patches import found_here
from .options import Given, takes
from .processes import owning, together

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..analysis import Added, GateStudy
    from ..data import ImageSource
    from ..latents import Codec
    from ..patching import PatchedBackbone
    from ..runtime import World

_TIMESTEPS = 21  # at which images are looked at


@takes(
    PatchedOptions,
    InspectOptions,
    BackboneOptions,
    CodecOptions,
    first=("patch", "output", "compare", "data", "num_images"),
    examples=(
        "dmp inspect-gates --patch run/patch.safetensors",
        "dmp inspect-gates --patch a.safetensors --compare b.safetensors",
    ),
)
def inspect_gates(ctx: typer.Context, given: Given) -> None:
    """Draw and measure the gate of a patch: which prompts it uses at which timestep, block by block.

    Needs the backbone's timestep embedder and no GPU. Images are needed for --data only.
    """
    given = found_here(given, "patch", "compare")
    common, asked, patched = given.make(CommonOptions), given.make(InspectOptions), given.make(PatchedOptions)
    printer = Printer(common)
    if patched.patch is None:
        raise ConfigError("no patch given", hint="Name a patch file with --patch.")
    from ..hub import short_name

    folder = asked.output or Path("gates") / short_name(patched.patch)
    from ..storage import refuse_existing

    with together(common.device or "cpu", printer) as (world, device):
        how = given.make(NetworkOptions), device, common.seed or 0, patched.force_backbone, world
        inspection = Inspection(patched.patch, folder, asked, *how)
        if common.dry_run:
            plan_gates(inspection, printer)
            return
        with owning(folder, "dmp inspect-gates", world), printer.watching():
            printer.muted = not world.is_first
            world.tell(lambda: refuse_existing(folder, force=asked.force))
            inspection.run(printer)


@dataclass
class Inspection:
    """One look at the gate of ``path``, written into ``folder``."""

    path: Path
    folder: Path
    asked: InspectOptions
    network: NetworkOptions
    device: torch.device
    seed: int
    force_backbone: bool
    world: World  # whose processes share the timesteps at which images are looked at

    def run(self, printer: Printer) -> None:
        from ..analysis import describe_gate, split_variance, study

        patched, added = self._look_at_images()
        if not self.world.is_first:
            return
        weights, timesteps, *of_experts = weights_over_time(patched)
        found, gap = study(weights, timesteps=timesteps), self.gap(weights)
        found.save(self.folder)
        variance = split_variance(weights)
        sentence = describe_gate(found, variance)
        apart = None if gap is None else self._write_comparison(gap, timesteps)
        if added is not None:
            self._write_added(added)
        # Only prompts that are added lie on the image.
        on_image = patched.patch.num_prompts and patched.patch.config.position == "add"
        self._draw(found, square_grid(weights.shape[2]) if on_image else None, printer)
        printer.table(f"Gates of {self.path.name}", list(found.COLUMNS), found.rows())
        experts = [study(own, timesteps=timesteps) for own in of_experts]
        for own in experts:
            self._study_experts(own, printer)
        self._write_page(found, sentence, apart, experts)
        if apart is not None:
            _say_apart(apart, printer)
        if variance is not None:
            printer.say(
                f"of the gate's variance {variance.timestep:.0%} is the timestep's, {variance.depth:.0%} the depth's, "
                f"{variance.both:.0%} of both together"
            )
        if added is not None:
            rows = [[str(block), f"{ratio:.2%}"] for block, ratio in enumerate(added.ratio.mean(0))]
            printer.table("What is added, beside the hidden state", ["block", "mean over the timesteps"], rows)
        printer.say(
            f"wrote {self.folder}: gates.html, gates.png, usage.png, a picture per block, gates.npz, gates.csv, "
            "summary.json"
        )
        printer.say(sentence)
        shares, size = None if variance is None else variance._asdict(), added and added.to_json()
        told = {"variance": shares, "comparison": apart, "added": size, "in_words": sentence}
        printer.result({"output": str(self.folder), **found.to_json(), **told})

    def load(self) -> tuple[PatchedBackbone, Codec | None]:
        """The patch on its backbone, and its codec where images are to be looked at."""
        from ..patching import attach, load_patch
        from ..pipeline import load_backbone_of, load_patched

        if self.asked.data is not None:
            loaded = load_patched(self.path, self.network, self.device, force=self.force_backbone)
            return loaded.denoiser, loaded.codec  # type: ignore[return-value]
        patch = load_patch(self.path)
        backbone = load_backbone_of(patch, self.network, self.device)
        return attach(backbone, patch, force=self.force_backbone), None

    def _look_at_images(self) -> tuple[PatchedBackbone, Added | None]:
        """How large what the patch adds is, on images of --data, at timesteps from the first to the last."""
        from ..analysis import encode_some, measure_added
        from ..diffusion import level_grid

        how: dict[str, Any] = {"count": self.asked.num_images, "max_pixels": self.asked.max_pixels}
        ready: list[tuple[PatchedBackbone, Any]] = []

        def prepare() -> None:
            patched, codec = self.load()
            own = {"backbone": patched.backbone, "codec": codec, "seed": self.seed, **how}
            ready.append((patched, None if codec is None else encode_some(self.find_images(patched), **own)))

        self.world.each(prepare)  # all processes end together where one fails
        ((patched, encoded),) = ready
        if encoded is None:
            return patched, None
        x0, condition = encoded
        steps = level_grid(patched.backbone.schedule, _TIMESTEPS).tolist()
        told = {"condition": condition, "timesteps": steps, "seed": self.seed, "world": self.world}
        return patched, measure_added(patched, x0, **told)

    def find_images(self, patched: PatchedBackbone) -> ImageSource:
        """The images of --data, classes numbered as in the patch's training."""
        from ..data import Bounds, find_images
        from ..training import as_trained

        assert self.asked.data is not None
        record, bounds = patched.patch.record, Bounds(self.asked.max_file_size, self.asked.follow_links)
        return find_images(self.asked.data, bounds=bounds, **as_trained(record.training if record else None))

    def gap(self, weights: np.ndarray) -> np.ndarray | None:
        """How far the gate of --compare is from ``weights`` (T, L, N), as (T, L); None where none is compared."""
        if self.asked.compare is None:
            return None
        return gap_to(self.asked.compare, weights, self.network, self.device, force=self.force_backbone)

    def _study_experts(self, found: GateStudy, printer: Printer) -> None:
        """The weights of the experts of a patch that has prompts too: the same files, in a folder of their own."""
        inside = replace(self, folder=self.folder / "experts")
        found.save(inside.folder)
        inside._draw(found, None, printer)
        printer.table(f"Gates of {self.path.name}, low-rank experts", list(found.COLUMNS), found.rows())

    def _write_comparison(self, gap: np.ndarray, timesteps: np.ndarray) -> dict[str, Any]:
        from ..analysis import draw_depth_maps, write_comparison
        from ..storage import write_bytes

        compared = [self.path, Path(str(self.asked.compare))]
        told = write_comparison(self.folder, gap, timesteps, names=(str(compared[0]), str(compared[1])))
        names = " and ".join("/".join(one.parts[-2:]) for one in compared)
        how: dict[str, Any] = {"title": f"How far apart: {names}", "ends": {"divergence, nats": (0.0, math.log(2))}}
        picture = draw_depth_maps({"divergence, nats": gap}, timesteps, **how)
        write_bytes(self.folder / "comparison.png", picture)
        return told

    def _write_added(self, added: Added) -> None:
        from ..analysis import draw_depth_maps
        from ..storage import write_bytes

        added.save(self.folder)
        panels = {"added / hidden": added.ratio, "norm of what is added": added.added}
        picture = draw_depth_maps(panels, added.timesteps, title=f"Added by {self.path.name}")
        write_bytes(self.folder / "added.png", picture)

    def _draw(self, found: GateStudy, grid: tuple[int, int] | None, printer: Printer) -> None:
        """The gate as heatmaps, of all blocks and of each, and how it spreads its weight."""
        from ..analysis import draw_block, draw_depth_maps, draw_gates
        from ..storage import write_bytes

        name, weights, timesteps = self.path.name, found.weights, found.timesteps
        use = {"entropy, nats": found.entropy, "effective prompts": found.effective_prompts}
        gates = draw_gates(weights, timesteps, title=f"Gate weights of {name}", grid=grid)
        write_bytes(self.folder / "gates.png", gates)
        count = weights.shape[2]
        ends = {"entropy, nats": (0.0, math.log(count)), "effective prompts": (1.0, float(count))} if count > 1 else {}
        spread = draw_depth_maps(use, timesteps, title=f"How {name} spreads its weight", ends=ends)
        write_bytes(self.folder / "usage.png", spread)
        with printer.progress("draw blocks", weights.shape[1]) as advance:
            for block in range(weights.shape[1]):
                picture = draw_block(weights, timesteps, block=block, title=f"{name}, block {block}", grid=grid)
                write_bytes(self.folder / f"block-{block:02d}.png", picture)
                advance(block + 1, "")

    def _write_page(
        self, found: GateStudy, sentence: str, apart: dict[str, Any] | None, experts: list[GateStudy]
    ) -> None:
        from ..analysis import build_gates_page
        from ..report import render
        from ..storage import write_text

        drawn = [self.folder / name for name in ("gates.png", "usage.png", "comparison.png", "added.png")]
        asked = {"comparison.png": apart is not None, "added.png": self.asked.data is not None}
        pictures = {path.name: path.read_bytes() for path in drawn if asked.get(path.name, True)}
        about: dict[str, Any] = {"name": str(self.path), "sentence": sentence, "pictures": pictures, "apart": apart}
        page = build_gates_page(found, **about, experts=experts[0] if experts else None)
        write_text(self.folder / "gates.html", render(page))


def _say_apart(content: dict[str, Any], printer: Printer) -> None:
    from ..analysis import COMPARED, compared_rows

    names = " and ".join(content["patches"])
    printer.table(f"Divergence of {names}, nats", list(COMPARED), compared_rows(content))
