"""Backbone files of this tool's own format: one safetensors file whose header says all that loading needs."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from ..config import CodecRecord, ImageSize, PipelineSampler, ScheduleConfig, Sides, TrainingRecord
from ..errors import CheckpointError
from ..storage import Weights, check_types, parse_json, read_header as read_file_header, safetensors_bytes, write_bytes
from .base import Backbone

_METADATA = "dmp.backbone"


class OwnHeader(NamedTuple):
    """What the header of such a file says about its backbone."""

    family: str
    sizes: dict[str, Any]
    schedule: ScheduleConfig
    codec: CodecRecord | None
    text_folder: Path | None
    flow_sampler: PipelineSampler | None  # of a rectified flow; None: as published
    side: int | str | None  # size of the training samples, for a backbone of any size; None: that in its sizes


class _About(BaseModel):
    """The header as it is written."""

    family: str
    sizes: dict[str, Any]
    schedule: ScheduleConfig
    codec: CodecRecord | None = None
    text_folder: str | None = None
    flow_sampler: PipelineSampler | None = None
    side: ImageSize | None = None
    training: dict[str, Any] | None = None


def save_backbone(path: Path, backbone: Backbone, *, codec: CodecRecord, training: dict[str, Any]) -> None:
    """Write a backbone as one safetensors file, whole or not at all. No option is needed to load it again."""
    about = {
        "family": backbone.family,
        "sizes": backbone.sizes,
        "schedule": backbone.schedule.model_dump(),
        "codec": codec.model_dump(),
        "text_folder": backbone.text_folder and str(backbone.text_folder),
        "side": Sides(*backbone.sample_shape[1:]).written if backbone.any_size else None,
        "training": training,
    }
    if backbone.flow_sampler is not None:
        about["flow_sampler"] = backbone.flow_sampler.model_dump()
    metadata = {"format": "pt", _METADATA: json.dumps(about)}
    write_bytes(Path(path), safetensors_bytes(backbone.state_dict(), metadata))


def read_header(weights: Weights, *, families: Collection[str]) -> OwnHeader | None:
    """Read and check the header of a file that :func:`save_backbone` wrote. None for any other file."""
    if _METADATA not in weights.metadata:
        return None
    name = f"the header of {weights.path}"
    content = parse_json(weights.metadata[_METADATA], name=name, kind=CheckpointError, paths=True)
    about = check_types(_About, content, name=name, kind=CheckpointError)
    if about.family not in families:
        raise CheckpointError(f"{name}: this dmp knows no family {about.family[:40]}", hint="Update dmp.")
    folder = Path(about.text_folder) if about.text_folder else None
    return OwnHeader(about.family, about.sizes, about.schedule, about.codec, folder, about.flow_sampler, about.side)


def trained_classes(source: str) -> list[str] | None:
    """The classes of the data that a backbone's file was trained on; None: it is no file of ours, or names none."""
    if not (source.endswith(".safetensors") and os.path.isfile(source)):
        return None
    text = read_file_header(Path(source)).metadata.get(_METADATA)
    if text is None:
        return None
    name = f"the header of {source}"
    content = parse_json(text, name=name, kind=CheckpointError, paths=True)
    about = check_types(_About, content, name=name, kind=CheckpointError)
    return check_types(TrainingRecord, about.training or {}, name=name, kind=CheckpointError).classes


def companions(weights: Weights, own: OwnHeader | None) -> tuple[CodecRecord | None, Path | None]:
    """The codec that belongs to the weights, and the folder of their text encoder; None for what is not named."""
    if own is not None:
        return own.codec, own.text_folder
    if weights.holds:
        file = os.path.abspath(weights.path)
        has_text = "clip" in weights.holds or "open_clip" in weights.holds
        return CodecRecord(kind="vae", source=file) if "vae" in weights.holds else None, Path(
            file
        ) if has_text else None
    if weights.pipeline is None:
        return None, None
    pipeline = Path(os.path.abspath(weights.pipeline))  # files record an absolute path, which is valid from any folder
    has_vae, has_text = ((pipeline / part / "config.json").exists() for part in ("vae", "text_encoder"))
    return CodecRecord(kind="vae", source=str(pipeline)) if has_vae else None, pipeline if has_text else None
