"""From options to a loaded backbone, patched or bare, and its codec: what several commands need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .backbones import Backbone
    from .config import PatchConfig, PatchRecord
    from .latents import Codec
    from .patching import Patch


@dataclass
class Loaded:
    """A backbone ready to be called, and what goes with it."""

    backbone: Backbone
    codec: Codec
    denoiser: nn.Module  # the patched backbone, or the bare one
    record: PatchRecord | None  # of the patch; None: there is none


def check_early(options: dict[str, Any], config: PatchConfig | None) -> Backbone | None:
    """The backbone on ``meta`` where its folder or name tells enough, and ``config`` found to suit it.

    Raises:
        ConfigError: a variant that it cannot have, said before a weight is read.
    """
    from .backbones import peek_backbone
    from .patching import check_variant

    name, checkpoint = options.get("backbone"), options.get("checkpoint")
    backbone = peek_backbone(str(name or checkpoint), checkpoint) if name or checkpoint else None
    if backbone is not None and config is not None:
        check_variant(backbone, config)
    return backbone


def load_backbone_alone(options: dict[str, Any], device: torch.device) -> Backbone:
    """The backbone that --backbone and --checkpoint name."""
    from .backbones import load_backbone

    name = options.get("backbone") or options.get("checkpoint")
    if name is None:
        raise ConfigError("no backbone given", hint="Name one with --backbone, for example --backbone dit-b2.")
    return load_backbone(
        str(name),
        checkpoint=options.get("checkpoint"),
        num_classes=options.get("num_classes"),
        num_heads=options.get("num_heads"),
        trained_with=options.get("trained_with"),
        schedule=options.get("schedule"),
        download=options.get("download", False),
        device=device,
    )


def load_bare(options: dict[str, Any], device: torch.device) -> Loaded:
    """The backbone that --backbone and --checkpoint name, and its codec."""
    from .latents import load_codec

    backbone = load_backbone_alone(options, device)
    codec = load_codec(options.get("vae"), backbone, download=options.get("download", False))
    fit_image_size(options.get("image_size"), backbone, codec)
    return Loaded(backbone, codec, backbone, None)


def build_fresh(options: dict[str, Any], device: torch.device, *, data_classes: int, seed: int) -> Loaded:
    """A backbone with fresh weights, its classes those of the data and its size that of --image-size."""
    from .backbones import build_backbone
    from .config import ScheduleConfig, build
    from .latents import load_codec

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
    backbone.initialise(seed=seed)
    if options.get("schedule"):
        backbone.schedule = build(ScheduleConfig, kind=options["schedule"])
    backbone = backbone.to(device)
    codec = load_codec(options.get("vae"), backbone, download=options.get("download", False))
    fit_image_size(size, backbone, codec)
    return Loaded(backbone, codec, backbone, None)


def load_backbone_of(patch: Patch, options: dict[str, Any], device: torch.device) -> Backbone:
    """The backbone a patch belongs to, from where it was or from --checkpoint or --backbone."""
    from .backbones import reload_backbone

    assert patch.record is not None
    return reload_backbone(
        patch.record,
        name=options.get("backbone"),
        checkpoint=options.get("checkpoint"),
        download=options.get("download", False),
        device=device,
    )


def load_adapted(path: Path, options: dict[str, Any], device: torch.device) -> Loaded:
    """The backbone that --backbone names, with the adapter in the folder ``path`` inside it."""
    from .patching import load_adapter

    loaded = load_bare(options, device)
    load_adapter(path, loaded.backbone)
    return loaded


def load_patched(path: Path, options: dict[str, Any], device: torch.device) -> Loaded:
    """A patch attached to its backbone, with the codec it was trained with."""
    from .latents import load_codec
    from .patching import attach, load_patch

    patch = load_patch(path)
    assert patch.record is not None
    force, strength = options.get("force_backbone", False), options.get("strength")
    backbone = load_backbone_of(patch, options, device)
    patched = attach(backbone, patch, strength=1.0 if strength is None else strength, force=force)
    recorded = None if force else patch.record.codec
    codec = load_codec(options.get("vae"), backbone, record=recorded, download=options.get("download", False))
    fit_image_size(options.get("image_size") or patch.record.image_size, backbone, codec)
    check_text(patch.record, backbone, force=force)
    return Loaded(backbone, codec, patched, patch.record)


def require_patch(path: Path | None) -> Path:
    """The --patch of a command that cannot do without one."""
    if path is None:
        raise ConfigError("no patch given", hint="Name a patch file with --patch.")
    return path


def check_text(record: PatchRecord, backbone: Backbone, *, force: bool) -> None:
    """Raise ConfigError when the text encoder found is not the one the patch was trained with."""
    if record.text is None or force:
        return
    found = backbone.captions.encoder.record
    if found.digest != record.text.digest:
        raise ConfigError(
            f"the patch was trained with another text encoder: {record.text.source}, not {found.source}",
            hint="Give the pipeline it was trained on with --checkpoint, or accept this one with --force-backbone.",
        )


def fit_image_size(wanted: int | None, backbone: Backbone, codec: Codec) -> None:
    """Make the backbone draw images of --image-size; ConfigError when it cannot."""
    from .latents import image_size

    if wanted is not None and backbone.any_size:
        if wanted % codec.factor:
            raise ConfigError(f"--image-size {wanted}: the codec needs a multiple of {codec.factor} pixels")
        backbone.resize(wanted // codec.factor)
    actual = image_size(codec, backbone)
    if wanted is not None and wanted != actual:
        raise ConfigError(f"--image-size {wanted}: this backbone and codec make images of {actual} pixels")
