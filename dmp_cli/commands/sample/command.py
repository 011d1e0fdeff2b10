"""``dmp sample``: numbered images from a patched or bare backbone, always the same ones for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...config import GuidedChannels, PlanLine, Prompt, SampleConfig, Sampler
from ...errors import ConfigError
from .. import options as opt
from ..console import Printer
from ..options import setting
from .job import DEFAULT_CHUNK, run_sample, run_verify


@opt.with_options(opt.patched, opt.backbone, opt.backbone_sizes, opt.everywhere)
def sample(
    ctx: typer.Context,
    num_images: Annotated[int | None, setting(SampleConfig, "num_images", "How many.", "-n", "--num-images")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder.", show_default="samples/NAME")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option("--adapter", help="A folder of dmp train --method lora, for --backbone.")
    ] = None,
    no_patch: Annotated[bool, typer.Option("--no-patch", help="The bare backbone, from the same noise.")] = False,
    strength: Annotated[float | None, setting(SampleConfig, "strength", "Factor on the patch; 1: as trained.")] = None,
    sampler: Annotated[Sampler | None, setting(SampleConfig, "sampler", "How noise is removed.")] = None,
    steps: Annotated[int | None, setting(SampleConfig, "steps", "Denoising steps.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance", help="Classifier-free guidance; 1: none.", show_default="1.5 for classes, 7.5 for text"
        ),
    ] = None,
    guidance_channels: Annotated[
        GuidedChannels | None,
        typer.Option("--guidance-channels", help="Which channels are guided.", show_default="3 of 4, else all"),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="Classes taken in turn, such as 207,360, or all.", show_default="all"),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="What to draw, for a backbone that reads text.", show_default=False)
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="A file with one a line; --d SEED and --l GUIDANCE may end a line."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Images in one fixed chunk.", show_default=f"{DEFAULT_CHUNK}, at most -n"),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="JSON lines, one an image: its class or prompt, seed, guidance.", metavar="FILE"),
    ] = None,
    balanced: Annotated[
        bool | None, typer.Option("--balanced", help="Refuse -n that does not give each class as many images.")
    ] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(
            "--guidance-interval", metavar="LOW,HIGH", help="Guide only in this share of the schedule; 1: pure noise."
        ),
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile", help="Compile the denoiser.")] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="K/N", help="Draw the K-th of N parts, for job arrays.")
    ] = None,
    npz: Annotated[bool, typer.Option("--npz", help="Write samples.npz too, as ADM's evaluation reads it.")] = False,
    tar: Annotated[
        bool, typer.Option("--tar", help="Keep the images in tar files of 1,000, as a webdataset, not one file each.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Draw nothing; check every image by its SHA-256.")] = False,
    grid: Annotated[str, typer.Option("--grid", metavar="ROWSxCOLS", help="Layout of grid.png.")] = "4x4",
    force: opt.Force = False,
) -> None:
    """Draw images. Run again to continue, with a larger -n to draw more: what is there stays as it is."""
    printer, options = Printer(ctx.params), ctx.params
    rows, columns = _parse_grid(grid)
    part = _parse_shard(shard)
    if balanced and plan is not None:
        raise ConfigError("--balanced is about classes taken in turn; a --plan says the class of each image")
    if part != (0, 1) and force:
        raise ConfigError("--force with --shard: each part would remove what the others have drawn")
    said, lines = _read_prompts(prompt, prompts), _read_plan(plan, [classes, prompt, prompts])
    if num_images is None and (said or lines):
        options = {**options, "num_images": len(said or lines or ())}
    given = {"classes": _parse_classes(classes), "prompts": said, "guidance_interval": _parse_span(guidance_interval)}
    wanted = opt.configure(SampleConfig, {**options, **given, "plan": None})
    patch, bare_name = options["patch"], options["backbone"] or options["checkpoint"]
    folder = output or _default_output(patch or adapter, bare_name, bare=no_patch)
    if adapter is not None and (patch is not None or no_patch or strength is not None):
        raise ConfigError("--adapter goes without a patch: leave out --patch, --no-patch and --strength")
    if verify and (output or patch or adapter or bare_name):
        run_verify(folder, num_images, printer)
        return
    if patch is None and bare_name is None:
        if adapter is not None:
            raise ConfigError("no backbone given for --adapter", hint="Name the one it was trained on with --backbone.")
        raise ConfigError("nothing to sample", hint="Give a patch with --patch, or a bare backbone with --backbone.")
    if options["dry_run"]:
        named = {"adapter": adapter and str(adapter), "output": str(folder)}
        printer.plan({"sample": wanted.model_dump(mode="json"), "patch": patch and str(patch), **named})
        return
    run_sample(wanted, lines, folder, options, printer, part=part, grid=(rows, columns))


def _parse_classes(text: str | None) -> tuple[int, ...] | None:
    if text is None or text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--classes {text}: give class indices such as 207,360, or all") from None


def _parse_shard(text: str | None) -> tuple[int, int]:
    """K/N, from 1, to the number of the part, from 0, and of all parts."""
    if text is None:
        return 0, 1
    number, _, total = text.partition("/")
    if not (number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise ConfigError(f"--shard {text}: give the part and their number, such as 3/8")
    return int(number) - 1, int(total)


def _parse_span(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--guidance-interval {text}: give two shares of the schedule, such as 0.1,0.9") from None
    return low, high


def _read_plan(path: Path | None, others: list[Any]) -> tuple[PlanLine, ...] | None:
    if path is None:
        return None
    if any(other is not None for other in others):
        raise ConfigError("--plan says classes and prompts itself: leave out --classes, --prompt and --prompts")
    from ...sampling import read_plan

    return read_plan(path)


def _read_prompts(text: str | None, path: Path | None) -> tuple[Prompt, ...] | None:
    if text is not None and path is not None:
        raise ConfigError("--prompt and --prompts are two sources of text; give one")
    if path is not None:
        from ...sampling import read_prompts

        return read_prompts(path)
    return None if text is None else (Prompt(text=text),)


def _parse_grid(text: str) -> tuple[int, int]:
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdigit() and columns.isdigit() and int(rows) and int(columns)):
        raise ConfigError(f"--grid {text}: give rows and columns such as 4x4")
    return int(rows), int(columns)


def _default_output(patch: Path | None, backbone: Any, *, bare: bool) -> Path:
    name = patch.stem if patch is not None else Path(str(backbone)).stem
    return Path("samples") / (f"{name}-bare" if bare and patch is not None else name)
