"""From a name, a path or a hub id to a loaded backbone: the only registry."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ..checkpoints import Weights, digest_tensors, read_weights
from ..config import BackboneHints, BackboneRecord, CodecRecord, PatchRecord, ScheduleConfig, build
from ..errors import CheckpointError, ConfigError
from . import dit_weights
from .base import Backbone
from .dit import DiT, DiTConfig, named_config

__all__ = [
    "Backbone",
    "build_backbone",
    "checkpoint_folder",
    "is_size_name",
    "load_backbone",
    "reload_backbone",
    "save_backbone",
]

_FAMILIES: dict[str, ModuleType] = {"dit": dit_weights}
_PUBLIC_HOMES = {"dit-xl2": "facebook/DiT-XL-2-256"}  # repositories that hold Meta's weights in diffusers' container
_EMBEDDED = {"digits": Path(__file__).parent.parent / "demo" / "backbone.safetensors"}
_METADATA = "dmp.backbone"


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
    """Load a backbone by name (``dit-l2``, ``digits``), path or hub id; strictly, in eval mode, in float32.

    Args:
        checkpoint: the weights for a ``name`` that alone finds none.
        num_classes: needed when the class table's rows can be read two ways.
        num_heads: needed for a width that none of the public sizes has.
        trained_with: ``meta`` or ``diffusers``, needed for a diffusers DiT folder: the two differ in arithmetic.
        schedule: ``linear`` (default) or ``cosine``, when the file does not say.
        download: allow fetching a public checkpoint from the hub.

    Raises:
        CheckpointError: not found, damaged, unsafe, of an unknown family, or tensors that do not fit.
        ConfigError: options that contradict the name.
    """
    weights, public = _find_weights(name, checkpoint, download=download)
    hints = build(
        BackboneHints,
        num_classes=num_classes,
        num_heads=num_heads,
        trained_with=trained_with or ("meta" if public else None),
        schedule=schedule,
    )
    backbone = _load(name, weights, hints)
    _check_name(name, backbone, weights)
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
    where = name or (str(checkpoint) if checkpoint else about.name if about.name in _EMBEDDED else about.source)
    hints = BackboneHints(
        sizes=about.sizes,
        trained_with="diffusers" if about.sizes.get("freq_shift") else "meta",
        schedule=record.schedule.kind,
    )
    try:
        weights, _ = _find_weights(where, checkpoint, download=download)
    except CheckpointError as error:
        raise CheckpointError(
            f"the patch's backbone is not to be found: {error.message}", hint="Say where it is now with --checkpoint."
        ) from error
    backbone = _load(about.name or where, weights, hints)
    backbone.schedule = record.schedule
    return backbone.to(device)


def _load(name: str, weights: Weights, hints: BackboneHints) -> Backbone:
    own = _own_metadata(weights)
    if own is not None:
        hints = hints.model_copy(update={"sizes": own["sizes"]})
    backbone: Backbone = _family_of(weights).build(weights, hints)
    backbone.schedule = _schedule(own, hints)
    backbone.codec = CodecRecord(**own["codec"]) if own and own.get("codec") else None
    backbone.record = BackboneRecord(
        family=backbone.family,
        sizes=backbone.sizes,
        source=str(weights.path.resolve()) if weights.path.exists() else str(weights.path),
        name=name.lower() if _is_name(name) else None,
        digest=digest_tensors(backbone.state_dict(), without=backbone.derived_tensors()),
    )
    return backbone


def is_size_name(name: str) -> bool:
    """Whether ``name`` alone gives a backbone's sizes: dit-s2 … dit-xl8, or a ``.json`` file of sizes."""
    return named_config(name) is not None or name.endswith(".json")


def build_backbone(name: str, *, device: str = "meta", **changes: Any) -> Backbone:
    """A backbone of a known shape without its weights: on ``meta`` for counting, else for training from scratch.

    ``name`` is a registry name, a ``.json`` file of sizes, or a weight file; ``changes`` replace single sizes
    (``num_classes``, ``input_size``, ``in_channels``) where they are not None.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    if "num_classes" in given:
        given["null_row"] = given["num_classes"] > 1
    config = build(DiTConfig, **{**_known_config(name).model_dump(), **given})
    with torch.device(device):
        return DiT(config)


def save_backbone(path: Path, backbone: Backbone, *, codec: CodecRecord, training: dict[str, Any]) -> None:
    """Write a backbone as one safetensors file that needs no option to be loaded again, whole or not at all."""
    from ..files import safetensors_bytes, write_bytes

    about = {
        "family": backbone.family,
        "sizes": backbone.sizes,
        "schedule": backbone.schedule.model_dump(),
        "codec": codec.model_dump(),
        "training": training,
    }
    metadata = {"format": "pt", _METADATA: json.dumps(about)}
    write_bytes(Path(path), safetensors_bytes(backbone.state_dict(), metadata))


def checkpoint_folder() -> Path:
    """Where weights for a name are looked for: ``$DMP_HOME/checkpoints``, by default in the user's data folder."""
    import platformdirs

    home = os.environ.get("DMP_HOME") or platformdirs.user_data_dir("dmp", appauthor=False)
    return Path(home) / "checkpoints"


def _find_weights(name: str, checkpoint: Path | None, *, download: bool) -> tuple[Weights, bool]:
    """The weights, and whether they are known to be Meta's own."""
    if checkpoint is not None:
        if not _is_name(name) and Path(name).resolve() != Path(checkpoint).resolve():
            raise ConfigError(f"--backbone {name} and --checkpoint {checkpoint} are two different files")
        return read_weights(checkpoint), False
    if name in _EMBEDDED:
        return read_weights(_EMBEDDED[name]), False
    if named_config(name) is None and (Path(name).exists() or not _looks_like_hub_id(name)):
        return read_weights(Path(name)), False
    if named_config(name) is not None:
        stem = name.lower().replace("/", "")
        for path in (checkpoint_folder() / f"{stem}{suffix}" for suffix in (".safetensors", ".pt")):
            if path.exists():
                return read_weights(path), False
        name = _PUBLIC_HOMES.get(stem, name)
    if not _looks_like_hub_id(name):
        raise CheckpointError(
            f"no weights found for {name}",
            hint=f"Give them with --checkpoint PATH, or put them at {checkpoint_folder() / (stem + '.safetensors')} (or .pt).",
        )
    return read_weights(_hub_folder(name, download=download)), name in _PUBLIC_HOMES.values()


def _is_name(name: str) -> bool:
    return name in _EMBEDDED or named_config(name) is not None


def _looks_like_hub_id(name: str) -> bool:
    parts = name.split("/")
    return named_config(name) is None and len(parts) == 2 and all(parts) and not name.startswith((".", "~"))


def _hub_folder(hub_id: str, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["config.json", "*.safetensors", "transformer/*", "model_index.json"]
    try:
        return Path(snapshot_download(hub_id, local_files_only=not download, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{hub_id}: not a path here, and not in the local hub cache" if not download else f"{hub_id}: {error}",
            hint="Check the path, fetch it from the hub with --download, or give a file with --checkpoint.",
        ) from error


def _family_of(weights: Weights) -> ModuleType:
    for family in _FAMILIES.values():
        if family.recognises(weights):
            return family
    about = weights.config.get("_class_name") if weights.config else ", ".join(sorted(weights.tensors)[:4]) + ", …"
    raise CheckpointError(
        f"{weights.path} is of an unknown family: {about}", hint=f"Known families: {', '.join(_FAMILIES)}."
    )


def _own_metadata(weights: Weights) -> dict[str, Any] | None:
    if _METADATA not in weights.metadata:
        return None
    try:
        about = json.loads(weights.metadata[_METADATA])
        DiTConfig(**about["sizes"])
        return about
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{weights.path}: its header cannot be understood: {error}") from error


def _schedule(own: dict[str, Any] | None, hints: BackboneHints) -> ScheduleConfig:
    if hints.schedule is not None:
        return ScheduleConfig(kind=hints.schedule)
    return ScheduleConfig(**own["schedule"]) if own and own.get("schedule") else ScheduleConfig()


def _check_name(name: str, backbone: Backbone, weights: Weights) -> None:
    wanted = named_config(name)
    if wanted is None:
        return
    keys = ("depth", "hidden_size", "patch_size")
    differences = [
        f"{key} {backbone.sizes[key]}, not {getattr(wanted, key)}"
        for key in keys
        if backbone.sizes[key] != getattr(wanted, key)
    ]
    if differences:
        raise CheckpointError(f"{weights.path} is no {name}: {'; '.join(differences)}")


def _known_config(name: str) -> DiTConfig:
    named = named_config(name)
    if named is not None:
        return named
    path = _EMBEDDED.get(name, Path(name))
    if path.suffix == ".json" and path.exists():
        try:
            return build(DiTConfig, **json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is no JSON file of sizes: {error}") from error
    weights = read_weights(path)
    own = _own_metadata(weights)
    return DiTConfig(**own["sizes"]) if own else dit_weights.infer_config(weights.tensors, BackboneHints(), source=path)
