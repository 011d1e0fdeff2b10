"""``dmp sample``: numbered images from a patched or bare backbone, always the same ones for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..config import GuidedChannels, Prompt, SampleConfig, Sampler
from ..errors import ConfigError
from . import _options as opt
from ._console import Printer
from ._options import setting

_DEFAULT_CHUNK = 16
_TEXT_GUIDANCE = 7.5  # as the pipelines of Stable Diffusion


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
        typer.Option("--batch-size", help="Images in one fixed chunk.", show_default=f"{_DEFAULT_CHUNK}, at most -n"),
    ] = None,
    grid: Annotated[str, typer.Option("--grid", metavar="ROWSxCOLS", help="Layout of grid.png.")] = "4x4",
    force: opt.Force = False,
) -> None:
    """Draw images. Run again to continue, with a larger -n to draw more: what is there stays as it is."""
    printer, options = Printer(ctx.params), ctx.params
    rows, columns = _parse_grid(grid)
    said = _read_prompts(prompt, prompts)
    if said is not None and num_images is None:
        options = {**options, "num_images": len(said)}
    wanted = opt.configure(SampleConfig, {**options, "classes": _parse_classes(classes), "prompts": said})
    patch, bare_name = options["patch"], options["backbone"] or options["checkpoint"]
    folder = output or _default_output(patch or adapter, bare_name, bare=no_patch)
    if adapter is not None and (patch is not None or no_patch or strength is not None):
        raise ConfigError("--adapter goes without a patch: leave out --patch, --no-patch and --strength")
    if patch is None and bare_name is None:
        if adapter is not None:
            raise ConfigError("no backbone given for --adapter", hint="Name the one it was trained on with --backbone.")
        raise ConfigError("nothing to sample", hint="Give a patch with --patch, or a bare backbone with --backbone.")
    if options["dry_run"]:
        named = {"adapter": adapter and str(adapter), "output": str(folder)}
        printer.plan({"sample": wanted.model_dump(mode="json"), "patch": patch and str(patch), **named})
        return
    _draw(wanted, folder, options, printer, rows=rows, columns=columns)


def _draw(
    wanted: SampleConfig, path: Path, options: dict[str, Any], printer: Printer, *, rows: int, columns: int
) -> None:
    from ..devices import pick_device
    from ..samplefolder import SampleFolder
    from ..sampling import chunks, resolve
    from ..sampling import sample as draw
    from ._models import load_adapted, load_bare, load_patched

    device = pick_device(options["device"] or "auto")
    if options["adapter"]:
        loaded = load_adapted(options["adapter"], options, device)
    else:
        loaded = load_patched(options["patch"], options, device) if options["patch"] else load_bare(options, device)
    bare = options["no_patch"] or options["patch"] is None
    folder = SampleFolder(path)
    filled = _fill_in(wanted, options, loaded.backbone, folder.recorded() if not options["force"] else None)
    config = resolve(filled, loaded.backbone)
    about = _about(config, loaded, options, bare=bare)
    origin = _origin(loaded, options, device)
    moved = folder.open(about, origin=origin, num_images=config.num_images, force=options["force"])
    if moved:
        printer.warn(
            f"{path} was begun with another {', '.join(moved)}: new pixels may differ from a straight run by a level"
        )
    todo = folder.missing(chunks(config), num_images=config.num_images)
    denoiser = loaded.backbone.eval() if bare else loaded.denoiser
    if bare and loaded.record is not None:
        loaded.denoiser.detach()  # type: ignore[operator]
    done = config.num_images - sum(1 for chunk in todo for i in chunk if i < config.num_images)
    with printer.progress("sample", config.num_images, done=done) as advance:
        for images in draw(denoiser, backbone=loaded.backbone, codec=loaded.codec, config=config, todo=todo):
            folder.write({image.index: image.pixels for image in images})
            done += len(images)
            advance(done, "")
    grid = folder.draw_grid(config, rows=rows, columns=columns)
    printer.say(f"wrote {config.num_images} images to {path}, {grid.name} among them")
    printer.result({"output": str(path), "num_images": config.num_images, "grid": str(grid), "drawn_chunks": len(todo)})


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
        changes["batch_size"] = earlier or min(_DEFAULT_CHUNK, wanted.num_images)
    return wanted.model_copy(update=changes)


def _about(config: SampleConfig, loaded: Any, options: dict[str, Any], *, bare: bool) -> dict[str, Any]:
    """All that fixes the samples."""
    from ..adapterfile import TENSORS
    from ..codec import image_size
    from ..files import sha256_of

    return {
        "sample": config.model_dump(mode="json", exclude={"num_images"}),
        "patch": None if bare else sha256_of(options["patch"]),
        "adapter": sha256_of(options["adapter"] / TENSORS) if options["adapter"] else None,
        "backbone": loaded.backbone.record.model_dump(mode="json", include={"family", "sizes", "digest"}),
        "schedule": loaded.backbone.schedule.model_dump(),
        "codec": loaded.codec.record.model_dump(include={"kind", "digest"}),
        "image_size": image_size(loaded.codec, loaded.backbone),
        "text": loaded.backbone.captions.encoder.record.digest if loaded.backbone.takes_text else None,
    }


def _origin(loaded: Any, options: dict[str, Any], device: Any) -> dict[str, Any]:
    """Where and with what they were made."""
    import diffusers
    import torch

    return {
        "device": device.type,
        "versions": {"dmp": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        "patch_file": options["patch"] and options["patch"].name,
        "backbone": loaded.backbone.record.source,
        "codec": loaded.codec.record.source,
    }


def _parse_classes(text: str | None) -> tuple[int, ...] | None:
    if text is None or text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--classes {text}: give class indices such as 207,360, or all") from None


def _read_prompts(text: str | None, path: Path | None) -> tuple[Prompt, ...] | None:
    if text is not None and path is not None:
        raise ConfigError("--prompt and --prompts are two sources of text; give one")
    if path is not None:
        from ..promptfile import read_prompts

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
