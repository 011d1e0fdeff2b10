"""``dmp inspect-gates``: what a patch's gate does over timesteps and blocks, in numbers and pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..pipeline import require_patch
from . import options as opt
from .console import Printer

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..analysis import Added
    from ..latents import Codec
    from ..patching import PatchedBackbone

_TIMESTEPS = 21  # at which images are looked at


@opt.with_options(opt.patched, opt.backbone, opt.everywhere)
def inspect_gates(
    ctx: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder.", show_default="gates/NAME")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", help="Another patch of the same backbone: how far are their gates apart?"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Real images: how large is what is added, beside the hidden state?"),
    ] = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", min=1, help="How many of them.")] = 16,
    force: opt.Force = False,
) -> None:
    """Draw and measure the gates of a patch. Needs the backbone's timestep embedder, no GPU; images only for --data."""
    printer, path = Printer(ctx.params), require_patch(ctx.params["patch"])
    folder = output or Path("gates") / path.stem
    if ctx.params["dry_run"]:
        printer.plan({"patch": str(path), "output": str(folder)})
        return
    _inspect(path, folder, ctx.params, printer)


def _inspect(path: Path, folder: Path, options: dict[str, Any], printer: Printer) -> None:
    from ..analysis import draw_block, draw_depth_maps, draw_gates, split_variance, study, write_comparison
    from ..runtime import pick_device
    from ..storage import refuse_existing, write_bytes

    refuse_existing(folder, force=options["force"])
    patched, codec = _load(path, options, pick_device(options["device"] or "cpu"))
    weights, timesteps = weights_over_time(patched)
    found, gap = study(weights, timesteps=timesteps), _gap(weights, options)
    added = _added(patched, codec, options) if codec is not None else None
    found.save(folder)
    variance = split_variance(weights)
    apart = None
    if gap is not None:
        apart = write_comparison(folder, gap, timesteps, names=(str(path), str(options["compare"])))
        names = " and ".join("/".join(Path(one).parts[-2:]) for one in (path, options["compare"]))
        write_bytes(
            folder / "comparison.png",
            draw_depth_maps({"divergence, nats": gap}, timesteps, title=f"How far apart: {names}"),
        )
    if added is not None:
        added.save(folder)
        panels = {"added / hidden": added.ratio, "norm of what is added": added.added}
        write_bytes(folder / "added.png", draw_depth_maps(panels, added.timesteps, title=f"Added by {path.name}"))
    # Only prompts that are added lie on the image.
    grid = square_grid(weights.shape[2]) if patched.patch.config.position == "add" else None
    write_bytes(folder / "gates.png", draw_gates(weights, timesteps, title=f"Gate weights of {path.name}", grid=grid))
    use = {"entropy, nats": found.entropy, "effective prompts": found.effective_prompts}
    write_bytes(folder / "usage.png", draw_depth_maps(use, timesteps, title=f"How {path.name} spreads its weight"))
    with printer.progress("draw blocks", weights.shape[1]) as advance:
        for block in range(weights.shape[1]):
            picture = draw_block(weights, timesteps, block=block, title=f"{path.name}, block {block}", grid=grid)
            write_bytes(folder / f"block-{block:02d}.png", picture)
            advance(block + 1, "")
    printer.table(f"Gates of {path.name}", list(found.COLUMNS), found.rows())
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
    printer.say(f"wrote {folder}: gates.png, usage.png, a picture per block, gates.npz, gates.csv, summary.json")
    shares = None if variance is None else variance._asdict()
    size = added and added.to_json()
    printer.result({"output": str(folder), **found.to_json(), "variance": shares, "comparison": apart, "added": size})


def _load(path: Path, options: dict[str, Any], device: torch.device) -> tuple[PatchedBackbone, Codec | None]:
    """The patch on its backbone, and its codec where images are to be looked at."""
    from ..patching import attach, load_patch
    from ..pipeline import load_backbone_of, load_patched

    if options["data"] is not None:
        loaded = load_patched(path, options, device)
        return loaded.denoiser, loaded.codec  # type: ignore[return-value]
    patch = load_patch(path)
    backbone = load_backbone_of(patch, options, device)
    return attach(backbone, patch, force=options["force_backbone"]), None


def _added(patched: PatchedBackbone, codec: Codec, options: dict[str, Any]) -> Added:
    """How large what is added is, on images of --data, at timesteps from the first to the last."""
    import numpy as np

    from ..analysis import encode_some, measure_added
    from ..data import find_images

    images, seed = find_images(options["data"]), options["seed"] or 0
    backbone = patched.backbone
    x0, condition = encode_some(images, backbone=backbone, codec=codec, count=options["num_images"], seed=seed)
    steps = np.linspace(0, backbone.schedule.num_timesteps - 1, _TIMESTEPS).round().astype(int).tolist()
    return measure_added(patched, x0, condition=condition, timesteps=steps, seed=seed)


def _gap(weights: np.ndarray, options: dict[str, Any]) -> np.ndarray | None:
    """How far the gates of --compare are from ``weights`` (T, L, N), as (T, L); None: there is none to compare."""
    if options["compare"] is None:
        return None
    from ..analysis import divergence
    from ..patching import attach, load_patch
    from ..pipeline import load_backbone_of
    from ..runtime import pick_device

    other = load_patch(options["compare"])
    backbone = load_backbone_of(other, options, pick_device(options["device"] or "cpu"))
    theirs, _ = weights_over_time(attach(backbone, other, force=options["force_backbone"]))
    return divergence(weights, theirs)


def _say_apart(content: dict[str, Any], printer: Printer) -> None:
    rows = [
        [str(b["block"]), f"{b['mean']:.4f}", f"{b['largest']:.4f}", str(b["largest_at_timestep"])]
        for b in content["blocks"]
    ]
    names = " and ".join(content["patches"])
    printer.table(f"Divergence of {names}, nats", ["block", "mean", "largest", "at timestep"], rows)


def weights_over_time(patched: PatchedBackbone) -> tuple[np.ndarray, np.ndarray]:
    """Gate weights (T, L, N) at all timesteps, and the timesteps (T,)."""
    import torch

    timesteps = torch.arange(patched.backbone.schedule.num_timesteps, device=patched.backbone.device)
    with torch.inference_mode():
        weights = patched.gating(timesteps).weights
    return weights.expand(len(timesteps), -1, -1).float().cpu().numpy(), timesteps.cpu().numpy()


def square_grid(num_prompts: int) -> tuple[int, int] | None:
    """Rows and columns of the prompts' places in the image; None where they form no square."""
    side = math.isqrt(num_prompts)
    return (side, side) if side * side == num_prompts else None
