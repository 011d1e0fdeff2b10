"""``dmp eval --loss``: the loss of patches and adapters on held-out images, in pairs with the bare backbone's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import CommonOptions, EvalConfig, EvalOptions, LossOptions, NetworkOptions, TextStoreOptions
from ..errors import ConfigError
from .console import Printer
from .half_range import place_of, warn_early
from .measured import check_measured, find_held_out, load_measured, said, with_adapter, with_patch
from .named_patches import found_here
from .options import Given
from .processes import owning, together
from .texts import Captions

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..backbones import Backbone, Keeping
    from ..data import ImageSource
    from ..pipeline import Loaded
    from ..runtime import World
    from ..training import HeldOut, HeldOutLoss

_READING = ("max_pixels", "max_file_size", "follow_links")  # options of scoring that apply to these images too
FILES = ("loss.json", "loss.html")


def measure_loss(given: Given, common: CommonOptions, asked: EvalOptions, printer: Printer) -> None:
    """Measure all of ``--patch`` and ``--adapter`` on the same draws; write loss.json and loss.html."""
    given = found_here(given, "patch")
    options = given.make(LossOptions)
    for name in given.of(EvalConfig):
        if name not in _READING:
            raise ConfigError(f"--{name.replace('_', '-')} does not go with --loss")
    if not (options.patch or options.adapter) or options.val_data is None:
        raise ConfigError(
            "nothing to measure",
            hint="Give --patch FILE or --adapter PATH (once or more) and the held-out images with --val-data.",
        )
    if options.adapter and (options.quantize is not None or options.offload_blocks):
        named = "--quantize" if options.quantize is not None else "--offload-blocks"
        raise ConfigError(f"{named} measures patches: leave out --adapter")
    if not options.patch and given.make(NetworkOptions).name is None:
        raise ConfigError("no backbone given for --adapter", hint="Name the one it was trained on with --backbone.")
    if common.dry_run:
        from .held_out_loss_plan import plan_loss

        plan_loss(given, common, asked, printer)
        return
    from ..storage import refuse_existing

    with (
        together(common.device, printer) as (world, device),
        owning(asked.output, "dmp eval --loss", world),
        printer.watching(),
    ):
        printer.muted = not world.is_first
        world.tell(lambda: refuse_existing(asked.output / FILES[0], force=asked.force))
        images, found = _measure(given, common, world, device, printer)
        if world.is_first:
            _write(given, asked.output, images, found, printer)


def _measure(
    given: Given, common: CommonOptions, world: World, device: torch.device, printer: Printer
) -> tuple[ImageSource, dict[str, HeldOutLoss]]:
    """The losses by the name of what was learnt; the processes of ``world`` share the draws."""
    from ..backbones import Keeping

    options = given.make(LossOptions)
    how = Keeping("fp32", options.quantize, options.offload_blocks)
    how.check(device)
    warn_early(common.dtype, given.make(NetworkOptions), place_of(options.patch), printer)
    ready: list[Loaded] = []
    drawn: list[tuple[ImageSource, HeldOut]] = []
    world.each(lambda: ready.append(load_measured(given, "cpu" if how.packs else str(device))))
    (loaded,) = ready
    with _kept(loaded, how, device):

        def prepare() -> None:  # what fails fails here, in all processes together, and before the first loss
            check_measured(given, loaded)
            drawn.append(_draws(given, loaded, common, world, printer))

        world.each(prepare)
        ((images, draws),) = drawn
        base = draws.losses(loaded.backbone.eval())
        found = {_name(path): _loss_of(path, loaded, draws, base, images, given, printer) for path in options.patch}
        found |= {str(path): _loss_of_adapter(path, loaded, draws, base, images, printer) for path in options.adapter}
    return images, found


def _write(given: Given, folder: Path, images: ImageSource, found: dict[str, HeldOutLoss], printer: Printer) -> None:
    from ..report import render
    from ..storage import write_json, write_text
    from ..training import build_loss_page

    options = given.make(LossOptions)
    entries = {name: one.line() for name, one in found.items()}
    about = {"val_data": images.fingerprint, "images": len(images), "val_draws": options.val_draws}
    about |= {} if options.quantize is None else {"quantize": options.quantize}
    write_text(folder / FILES[1], render(build_loss_page(entries, about, adapters=len(options.adapter))))
    write_json(folder / FILES[0], {**about, "patches": entries})  # written last: where it is, the page is too
    kind = "patch or adapter" if options.adapter else "patch"
    columns = [kind, "held-out loss", "bare", "difference", "95 % interval"]
    printer.table(f"Loss on {options.val_data}", columns, [[name, *_cells(one)] for name, one in found.items()])
    printer.say(f"wrote {folder / FILES[1]} and {FILES[0]}")
    printer.result({"output": str(folder), **about, "patches": entries})


@contextlib.contextmanager
def _kept(loaded: Loaded, how: Keeping, device: torch.device) -> Iterator[None]:
    """Context in which the backbone is kept as ``how`` says, and it and the codec are on ``device``."""
    from ..backbones import kept

    def move(place: torch.device) -> None:
        loaded.backbone.to(place)
        loaded.codec.to(place)

    if how.offload_blocks:
        loaded.codec.rest()
    loaded.backbone.requires_grad_(False)  # nothing is learnt here, and only frozen layers are packed
    with kept(loaded.backbone, how, device=device, move=move):
        yield


def _draws(
    given: Given, loaded: Loaded, common: CommonOptions, world: World, printer: Printer
) -> tuple[ImageSource, HeldOut]:
    from ..data import LiveReader
    from ..latents import image_size
    from ..training import HeldOut

    options = given.make(LossOptions)
    images = find_held_out(given, loaded)
    side, channels = image_size(loaded.codec, loaded.backbone), loaded.codec.image_channels
    reader = LiveReader(images, image_size=side, channels=channels, max_pixels=said(given, "max_pixels"))
    if loaded.backbone.takes_text:
        _encode_captions(images, options.val_draws, loaded.backbone, printer)
    how: dict[str, Any] = {"draws": options.val_draws, "dtype": common.dtype or "fp32", "world": world}
    return images, HeldOut(loaded.backbone, loaded.codec, source=(images, reader), **how)


def _encode_captions(images: ImageSource, draws: int, backbone: Backbone, printer: Printer) -> None:
    """Encode the captions of the draws into memory, if it holds them, so that large text encoders can leave it."""
    from ..runtime import World
    from ..training import chosen_images

    hint = "fewer --val-draws have fewer captions"
    captions = Captions(TextStoreOptions(), device=backbone.device, world=World(), printer=printer, hint=hint)
    chosen = sorted(set(chosen_images(len(images), draws).tolist()))
    captions.hold(backbone, [images.caption(index) for index in chosen])


def _loss_of(
    path: Path, loaded: Loaded, draws: HeldOut, base: np.ndarray, images: ImageSource, given: Given, printer: Printer
) -> HeldOutLoss:
    """The loss of one patch. Raises PatchError for a patch of another backbone or codec."""
    with with_patch(path, loaded, given) as patched:
        record = patched.patch.record
        assert record is not None
        _warn_of_known((record.training or {}).get("data_fingerprint"), path, images, printer)
        return draws.compare(draws.losses(patched), base=base)


def _loss_of_adapter(
    path: Path, loaded: Loaded, draws: HeldOut, base: np.ndarray, images: ImageSource, printer: Printer
) -> HeldOutLoss:
    """The loss of one adapter, which is put into a backbone of its own that shares what is not learnt."""
    from ..patching import training_of

    adapted = with_adapter(path, loaded)
    _warn_of_known((training_of(path).model_extra or {}).get("data_fingerprint"), path, images, printer)
    return draws.compare(draws.losses(adapted), base=base)


def _warn_of_known(fingerprint: object, path: Path, images: ImageSource, printer: Printer) -> None:
    """Warn where the images of ``fingerprint``, which were trained on, are those that are measured."""
    if fingerprint == images.fingerprint:
        printer.warn(f"{path} was trained on these images: its loss on them says nothing about new ones")


def _name(patch: Path) -> str:
    from ..hub import pinned_name

    return pinned_name(patch) or str(patch)


def _cells(found: HeldOutLoss) -> list[str]:
    whole = found.whole
    assert whole.difference is not None
    assert whole.interval is not None
    low, high = whole.interval
    return [f"{whole.loss:.6f}", f"{whole.base:.6f}", f"{whole.difference:+.6f}", f"{low:+.6f} to {high:+.6f}"]
