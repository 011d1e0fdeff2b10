"""Load a backbone from a name, a path or a hub id. This is the only registry."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from ..config import BackboneHints, BackboneRecord, PatchRecord, PipelineSampler, build, sides_of
from ..errors import CheckpointError, ConfigError
from ..storage import digest_tensors
from . import schedules
from .base import Backbone
from .by_hand import as_by_hand
from .claims import building, check_sizes
from .families import FAMILIES, recognise, wrap
from .names import named_sizes, plain_name
from .native_file import companions, read_header
from .own_sampling import own_sampling_of
from .sources import EMBEDDED, Found, find_weights, is_name


def load_backbone(
    name: str,
    *,
    checkpoint: Path | None = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
    trained_with: str | None = None,
    schedule: str | None = None,
    objective: str | None = None,
    image_size: int | str | None = None,
    text: Path | None = None,
    download: bool = False,
    device: str | torch.device = "cpu",
) -> Backbone:
    """Load a backbone by name (``dit-l2``, ``sd-v1.5``), path or hub id: strictly, in eval mode, in float32.

    Args:
        checkpoint: path of the weights, for a ``name`` whose weights are not found without it.
        num_classes: needed where the last row of the class table may be a class or the null row.
        num_heads: needed where the width is not that of a public size.
        trained_with: ``meta`` or ``diffusers``. A diffusers DiT folder needs it: the two differ in arithmetic.
        schedule: ``linear``, ``scaled_linear`` or ``cosine``, or a flow's ``vp``, for a file that does not name its
            own. A DiT's default is linear.
        objective: ``epsilon``, ``v_prediction``, or the flow ``sit`` or ``repa``, for a file that does not say what
            its backbone predicts. The default is epsilon.
        text: a folder with the tokenizer, and with the text encoder where the weights hold none.
        image_size: pixels, for a DiT whose file has no table of positions.
        download: allow a public checkpoint to be fetched from the hub.

    Raises:
        CheckpointError: the weights are missing, damaged, unsafe or of an unknown family, or their tensors do not fit.
        ConfigError: an option contradicts the name or the file.
    """
    found = find_weights(name, checkpoint, download=download)
    hints = build(
        BackboneHints,
        num_classes=num_classes,
        num_heads=num_heads,
        trained_with=trained_with or ("meta" if found.public and recognise(found.weights) == "dit" else None),
        schedule=schedule,
        objective=objective,
        image_size=image_size,
        text=text,
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
    text: Path | None = None,
    download: bool = False,
    device: str | torch.device = "cpu",
) -> Backbone:
    """Load the backbone that a patch was made for.

    It is read from the place that ``record`` names, or from ``name`` or ``checkpoint`` if it has moved. Its sizes and
    schedule are those of ``record``. ``attach`` checks later that its weights are the same.

    Raises:
        CheckpointError: the file is gone, or holds the tensors of another backbone.
    """
    about = record.backbone
    if about.by_hand is not None:
        raise CheckpointError(
            f"the patch is of a {about.sizes.get('class')} that was patched by hand: how it is called is not known",
            hint="Attach it in Python to your own model: attach(pipe.transformer, load_patch(PATH)).",
        )
    where = name or (str(checkpoint) if checkpoint else _last_known(about))
    hints = BackboneHints(
        sizes=about.sizes,
        trained_with="diffusers" if about.sizes.get("freq_shift") else "meta",
        schedule=record.schedule.kind,
        objective=record.schedule.objective,
        text=text,
    )
    try:
        found = find_weights(where, checkpoint, download=download)
    except CheckpointError as error:
        raise CheckpointError(
            f"cannot read the patch's backbone, last seen at {about.source}: {error.message}",
            hint="Give its present path with --checkpoint.",
        ) from error
    backbone = _load(found, hints, name=_name_of(about.name or where, checkpoint))
    backbone.schedule = record.schedule
    if text is None and record.text is not None and Path(record.text.source).is_dir():
        _take_text(backbone, Path(record.text.source), only_missing=True)
    return backbone.to(device)


def _load(found: Found, hints: BackboneHints, *, name: str | None) -> Backbone:
    """Recognise the family of the weights found, build it, fill it strictly, and record where it came from."""
    weights, own = found.weights, read_header(found.weights, families=FAMILIES)
    if own is not None:
        hints = hints.model_copy(update={"sizes": own.sizes})
    family = FAMILIES[own.family if own else recognise(weights)]
    told = {**(weights.config or {}), **(hints.sizes or {})}
    check_sizes(told, source=weights.path)
    # Only a config, or sizes in a header, can be nonsense: else all is read from the shapes of the tensors.
    with building(weights.path) if told else contextlib.nullcontext():
        backbone: Backbone = family.build(weights, hints)
    if own is None:
        backbone.schedule = schedules.schedule_of(
            weights, hints, family=backbone.family, learns_sigma=backbone.learns_sigma, trained_as=backbone.trained_as
        )
        if not found.public and backbone.trained_as is None:
            backbone.remarks += schedules.assumed_of(weights, hints)
    else:
        backbone.schedule = own.schedule
    backbone.own_sampling = own_sampling_of(weights)
    if (stated := own.flow_sampler if own else _flow_sampler_of(backbone)) is not None:
        backbone.flow_sampler = stated
    backbone.codec, backbone.text_folder = companions(weights, own)
    if hints.text is not None:
        _take_text(backbone, hints.text)
    if own and own.side is not None:
        sides = sides_of(own.side)
        check_sizes({**told, "sample_size": max(sides)}, source=weights.path)
        backbone.resize(*sides)
    backbone.record = BackboneRecord(
        family=backbone.family,
        sizes=backbone.sizes,
        source=found.source,
        name=name,
        digest=digest_tensors(backbone.state_dict(), without=backbone.derived_tensors()),
    )
    backbone.recorded_stamp = backbone.stamp()
    return backbone


def _flow_sampler_of(backbone: Backbone) -> PipelineSampler | None:
    """The scheduler that the pipeline of a rectified flow states; None: none, or none that can be followed."""
    own = backbone.own_sampling
    return None if own is None or backbone.schedule.flow != "rectified" else own.sampler


def _take_text(backbone: Backbone, folder: Path, *, only_missing: bool = False) -> None:
    """Let ``backbone`` read text by what is in ``folder``, or by its tokenizer alone."""
    if backbone.text_folder is not None and backbone.text_folder.is_file():
        backbone.tokenizer_folder = folder
    elif backbone.text_folder is None or not only_missing:
        backbone.text_folder = folder


def as_backbone(model: Any, record: BackboneRecord | None = None) -> Backbone:
    """Wrap a model that diffusers has loaded, such as ``pipe.unet``, as a backbone. The model itself stays as it is.

    ``record`` is what a patch says of its own backbone: of one that was patched by hand, it names the blocks.

    Raises:
        CheckpointError: the class or the config of the model is not supported.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile has wrapped
    return wrap(model) if record is None or record.by_hand is None else as_by_hand(model, record)


def _last_known(about: BackboneRecord) -> str:
    """Where to look for a patch's backbone: its old path, or the name that loaded it if nothing is there any more."""
    if about.name is None or (about.name not in EMBEDDED and Path(about.source).exists()):
        return about.source
    return about.name


def _name_of(name: str, checkpoint: Path | None) -> str | None:
    """The registry name to record, or None. The embedded backbone's name does not describe another file's weights."""
    return plain_name(name) if is_name(name) and not (name in EMBEDDED and checkpoint is not None) else None


def _check_name(name: str, backbone: Backbone, source: str) -> None:
    """Raise CheckpointError if ``backbone`` has another family or other sizes than ``name`` stands for."""
    wanted = named_sizes(name)
    if wanted is None:
        return
    keys = ["depth", "hidden_size", "patch_size", "num_heads"] if wanted.family == "dit" else [*wanted.sizes]
    if backbone.family != wanted.family:
        raise CheckpointError(f"{source} is not a {name}: its family is {backbone.family}")
    differences = [
        f"{key} {backbone.sizes.get(key)}, not {wanted.sizes[key]}"
        for key in keys
        if backbone.sizes.get(key) != wanted.sizes[key]
    ]
    if differences:
        raise CheckpointError(f"{source} is not a {name}: {'; '.join(differences)}")


def _check_hints(hints: BackboneHints, backbone: Backbone, source: str) -> None:
    """Raise ConfigError if an option contradicts what the file itself says."""
    asked = [key for key in ("num_heads", "trained_with") if getattr(hints, key) is not None]
    if backbone.family != "dit" and asked:
        raise ConfigError(
            f"--{asked[0].replace('_', '-')} applies to a DiT only; the family of {source} is {backbone.family}"
        )
    if hints.text is not None and not backbone.takes_text:
        raise ConfigError(f"--text is for a backbone that reads text; {source} reads none")
    known = {
        "num_classes": backbone.num_classes,
        "num_heads": backbone.sizes.get("num_heads"),
        "trained_with": "diffusers" if backbone.sizes.get("freq_shift") else "meta",
        "schedule": backbone.schedule.kind,
        "objective": backbone.schedule.objective,
    }
    for key, value in known.items():
        hint = getattr(hints, key)
        if hint is not None and hint != value:
            option = "--" + key.replace("_", "-")
            raise ConfigError(f"{option} {hint} contradicts {source}, which says {value}", hint=f"Leave {option} out.")
