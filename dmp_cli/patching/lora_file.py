"""Read and write an adapter's folder: the two files that peft reads, and ``dmp.json``, which names the backbone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..backbones import Backbone
from ..config import AdapterRecord, TrainingRecord
from ..errors import CheckpointError, ConfigError
from ..storage import (
    check_finite,
    check_floating,
    check_types,
    holds,
    parse_json,
    read_header,
    read_object,
    read_safetensors,
    safetensors_bytes,
    staged_folder,
    write_bytes,
)
from .identity import check_digest
from .lora import Adapter, adapter_shapes, inject, peft_fields

ADAPTER_TENSORS = "adapter_model.safetensors"  # peft's names for its two files
_CONFIG = "adapter_config.json"
_RECORD = "dmp.json"  # peft ignores it
_VERSION = 1


def save_adapter(path: Path, adapter: Adapter, *, training: Mapping[str, Any]) -> None:
    """Write the folder ``path`` for peft and for :func:`load_adapter`. The same content gives the same bytes.

    A new folder appears by one rename. If the folder is there already, only the file of the tensors differs, which also
    holds ``training``. It is replaced in one step, so that a kill leaves the old or the new folder, and always a whole
    one. A folder of another adapter is removed first: a kill right then leaves no folder, and the next save writes it.

    Raises:
        ConfigError: the backbone was made in code, so the folder could not name it.
    """
    if adapter.backbone is None:
        raise ConfigError("this adapter does not know its backbone", hint="Load it with load_backbone.")
    path, record = Path(path), AdapterRecord(backbone=adapter.backbone)
    metadata = {"format": "pt", "dmp.training": json.dumps(dict(training))}
    tensors = safetensors_bytes(adapter.parameters, metadata)
    fixed = {
        _CONFIG: _as_json(peft_fields(adapter.layers, rank=adapter.rank, is_dora=adapter.is_dora)),
        _RECORD: _as_json(record.model_dump(mode="json")),
    }
    if all(holds(path / name, data) for name, data in fixed.items()):
        write_bytes(path / ADAPTER_TENSORS, tensors)
        return
    shutil.rmtree(path, ignore_errors=True)
    with staged_folder(path) as staged:
        for name, data in {**fixed, ADAPTER_TENSORS: tensors}.items():
            write_bytes(staged / name, data)


def load_adapter(path: Path, backbone: Backbone) -> Adapter:
    """Put the adapter in the folder ``path`` into ``backbone``, frozen. All checks come before the first change.

    Raises:
        CheckpointError: the adapter is missing, damaged or made for another backbone, or its tensors do not fit.
        ConfigError: peft is not installed.
    """
    path = Path(path)
    check_digest(backbone, _read_record(path / _RECORD).backbone, what="this adapter was")
    rank, is_dora, layers = _read_config(path / _CONFIG, backbone)
    file, expected = path / ADAPTER_TENSORS, adapter_shapes(layers, rank=rank, is_dora=is_dora)
    _check_shapes(read_header(file).shapes, expected, file)  # before memory is taken for them
    tensors, _ = read_safetensors(file)
    check_floating(tensors, file)
    check_finite(tensors, source=file)
    adapter = inject(backbone, layers, rank=rank, is_dora=is_dora, wanted_by="--adapter")
    for name, parameter in adapter.parameters.items():
        parameter.data.copy_(tensors[name])
    return adapter


def read_training(path: Path) -> TrainingRecord:
    """What the adapter in the folder ``path`` says of its training.

    Raises:
        CheckpointError: the adapter is missing or damaged.
    """
    file = Path(path) / ADAPTER_TENSORS
    text = read_header(file).metadata.get("dmp.training", "{}")
    name = f"the training in {file}"
    content = parse_json(text, name=name, kind=CheckpointError, paths=True)
    return check_types(TrainingRecord, content, name=name, kind=CheckpointError)


def _as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, kind=CheckpointError, paths=True)
    except CheckpointError as error:
        hint = "Give --adapter what dmp train --method lora, dora, bitfit or difffit wrote."
        raise CheckpointError(error.message, hint=hint) from error


def _read_record(path: Path) -> AdapterRecord:
    fields = _read_json(path)
    version = fields.get("format_version")
    if version != _VERSION:
        raise CheckpointError(f"{path} has format version {version!r:.40}; this dmp reads version {_VERSION}")
    return check_types(AdapterRecord, fields, name=str(path), kind=CheckpointError)


def _read_config(path: Path, backbone: Backbone) -> tuple[int, bool, dict[str, nn.Linear]]:
    """Rank, whether it is DoRA, and layers in peft's config. It is refused with any field dmp would not write."""
    fields = _read_json(path)
    rank, names, is_dora = fields.get("r"), fields.get("target_modules"), "use_dora" in fields
    changed = CheckpointError(f"{path} is not as dmp train wrote it", hint="Copy the adapter again.")
    if type(rank) is not int or not 1 <= rank < 1 << 31 or not isinstance(names, list) or not names:
        raise changed
    if not all(isinstance(name, str) for name in names) or not _is_ours(fields, names, rank, is_dora):
        raise changed
    layers, modules = {}, dict(backbone.core.named_modules())
    for name in names:
        layer = modules.get(name)
        if not isinstance(layer, nn.Linear):
            raise CheckpointError(f"{path} names a layer that this backbone does not have: {name}")
        layers[name] = layer
    return rank, is_dora, layers


def _is_ours(fields: dict[str, Any], names: list[str], rank: int, is_dora: bool) -> bool:
    """Whether these are the fields that dmp writes."""
    return fields.get("use_dora", True) is True and fields == peft_fields(names, rank=rank, is_dora=is_dora)


def _check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: Path) -> None:
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "misshapen": [
            f"{name}: {found[name]} instead of {shape}"
            for name, shape in sorted(expected.items())
            if name in found and found[name] != shape
        ],
    }
    lines = [f"  {kind} ({len(names)}): {', '.join(names[:3])}" for kind, names in problems.items() if names]
    if lines:
        raise CheckpointError(f"{source} does not fit the backbone; nothing was loaded", details=lines)
