"""From a name, a path or a hub id to a loaded backbone: the only registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..config import BackboneHints, BackboneRecord, PatchRecord, build
from ..errors import CheckpointError, ConfigError
from ..storage import digest_tensors
from . import pixart, schedules, unet
from .base import Backbone
from .families import FAMILIES, recognise
from .names import named_sizes, plain_name
from .native_file import companions, read_header
from .sources import EMBEDDED, Found, find_weights, is_name


def load_backbone(
    name: str,
    *,
    checkpoint: Path | None = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
    trained_with: str | None = None,
    schedule: str | None = None,
    download: bool = False,
    device: str | torch.device = "cpu",
) -> Backbone:
    """Load a backbone by name (``dit-l2``, ``sd-v1.5``), path or hub id; strictly, in eval mode, in float32.

    Args:
        checkpoint: the weights for a ``name`` that alone finds none.
        num_classes: needed when the class table's rows can be read two ways.
        num_heads: needed for a width that none of the public sizes has.
        trained_with: ``meta`` or ``diffusers``, needed for a diffusers DiT folder: the two differ in arithmetic.
        schedule: ``linear``, ``scaled_linear`` or ``cosine``, when the file does not say; a DiT's default is linear.
        download: allow fetching a public checkpoint from the hub.

    Raises:
        CheckpointError: not found, damaged, unsafe, of an unknown family, or tensors that do not fit.
        ConfigError: options that contradict the name.
    """
    found = find_weights(name, checkpoint, download=download)
    hints = build(
        BackboneHints,
        num_classes=num_classes,
        num_heads=num_heads,
        trained_with=trained_with or ("meta" if found.public and recognise(found.weights) == "dit" else None),
        schedule=schedule,
    )
    backbone = _load(found, hints, name=_name_of(name, checkpoint))
    _check_name(name, backbone, found.source)
    _check_hints(hints, backbone, found.source)
    return backbone.to(device)


def reload_backbone(
    record: PatchRecord,
    *,
    name: str | None = None,
    checkpoint: Path | None = None,
    download: bool = False,
    device: str | torch.device = "cpu",
) -> Backbone:
    """The backbone that a patch was made for, from where it was, or from ``checkpoint`` or ``name`` if it has moved.

    Whether its weights are the same is for ``attach`` to check; its sizes and schedule are those of ``record``.

    Raises:
        CheckpointError: it is not there any more, or holds another backbone's tensors.
    """
    about = record.backbone
    where = name or (str(checkpoint) if checkpoint else _last_known(about))
    hints = BackboneHints(
        sizes=about.sizes,
        trained_with="diffusers" if about.sizes.get("freq_shift") else "meta",
        schedule=record.schedule.kind,
    )
    try:
        found = find_weights(where, checkpoint, download=download)
    except CheckpointError as error:
        raise CheckpointError(
            f"the patch's backbone, once at {about.source}, cannot be read: {error.message}",
            hint="Say where it is now with --checkpoint.",
        ) from error
    backbone = _load(found, hints, name=_name_of(about.name or where, checkpoint))
    backbone.schedule = record.schedule
    return backbone.to(device)


def _load(found: Found, hints: BackboneHints, *, name: str | None) -> Backbone:
    weights, own = found.weights, read_header(found.weights, families=FAMILIES)
    if own is not None:
        hints = hints.model_copy(update={"sizes": own.sizes})
    family = FAMILIES[own.family if own else recognise(weights)]
    backbone: Backbone = family.build(weights, hints)
    backbone.schedule = own.schedule if own else schedules.schedule_of(weights, hints, family=backbone.family)
    backbone.codec, backbone.text_folder = companions(weights, own)
    if own and own.side is not None:
        backbone.resize(own.side)
    backbone.record = BackboneRecord(
        family=backbone.family,
        sizes=backbone.sizes,
        source=found.source,
        name=name,
        digest=digest_tensors(backbone.state_dict(), without=backbone.derived_tensors()),
    )
    backbone.recorded_stamp = backbone.stamp()
    return backbone


def as_backbone(model: Any) -> Backbone:
    """A model that diffusers has loaded, such as ``pipe.unet``, behind the seam; the model itself stays as it is.

    Raises:
        CheckpointError: of a class or config that is not known here.
    """
    name = type(model).__name__
    if name in unet.UNet.classes:
        unet.check_known(model, source=name)
        return unet.UNet(model)
    if name in pixart.PixArt.classes:
        return pixart.PixArt(model)
    known = ", ".join((*unet.UNet.classes, *pixart.PixArt.classes))
    raise CheckpointError(f"{name} is no backbone", hint=f"Known are {known}, and what dmp_cli.load_backbone gives.")


def _last_known(about: BackboneRecord) -> str:
    """Where to look for a patch's backbone: where it was, or else by the name it was loaded by."""
    if about.name is None or (about.name not in EMBEDDED and Path(about.source).exists()):
        return about.source
    return about.name


def _name_of(name: str, checkpoint: Path | None) -> str | None:
    """The registry name to remember: the embedded weights' name says nothing about another file's weights."""
    return plain_name(name) if is_name(name) and not (name in EMBEDDED and checkpoint is not None) else None


def _check_name(name: str, backbone: Backbone, source: str) -> None:
    wanted = named_sizes(name)
    if wanted is None:
        return
    keys = ["depth", "hidden_size", "patch_size", "num_heads"] if wanted.family == "dit" else [*wanted.sizes]
    if backbone.family != wanted.family:
        raise CheckpointError(f"{source} is no {name}: it is a {backbone.family}")
    differences = [
        f"{key} {backbone.sizes.get(key)}, not {wanted.sizes[key]}"
        for key in keys
        if backbone.sizes.get(key) != wanted.sizes[key]
    ]
    if differences:
        raise CheckpointError(f"{source} is no {name}: {'; '.join(differences)}")


def _check_hints(hints: BackboneHints, backbone: Backbone, source: str) -> None:
    """Raise ConfigError when an option says other than what the file itself says."""
    asked = [key for key in ("num_heads", "trained_with") if getattr(hints, key) is not None]
    if backbone.family != "dit" and asked:
        raise ConfigError(f"--{asked[0].replace('_', '-')} is about a DiT; {source} is a {backbone.family}")
    known = {
        "num_classes": backbone.num_classes,
        "num_heads": backbone.sizes.get("num_heads"),
        "trained_with": "diffusers" if backbone.sizes.get("freq_shift") else "meta",
        "schedule": backbone.schedule.kind,
    }
    for key, value in known.items():
        hint = getattr(hints, key)
        if hint is not None and hint != value:
            option = "--" + key.replace("_", "-")
            raise ConfigError(f"{option} {hint}: {source} says {value}", hint=f"Leave {option} out.")
