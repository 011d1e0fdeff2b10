"""A patch in one safetensors file: its tensors, a JSON header, and a SHA-256 over every byte of both.

The safetensors format loads a flipped bit without a word, so the file carries its own seal: the SHA-256 of the whole
file with the seal's 64 characters set to zero. Any changed bit, in tensors, header or seal, is refused.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..config import PatchRecord
from ..errors import PatchError
from ..storage import safetensors_bytes, write_bytes

if TYPE_CHECKING:  # reading a header must not wait for torch
    from .prompts import Patch

_HEADER, _SEAL = "dmp.header", "dmp.sha256"
_BLANK = "0" * 64
_VERSION = 1


def save_patch(path: Path, patch: Patch) -> None:
    """Write ``patch`` with its ``record`` to ``path``, whole or not at all.

    Raises:
        PatchError: the patch has no record, so nothing would say which backbone it belongs to.
        DMPError: the disk is full or the place cannot be written.
    """
    if patch.record is None:
        raise PatchError("this patch does not know its backbone", hint="Make it with engine.create_patch.")
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{patch.record.backbone.family}/dmp",
        "modelspec.implementation": "dmp-cli",
        "modelspec.title": f"DMP patch for {patch.record.backbone.name or patch.record.backbone.family}",
        _HEADER: patch.record.model_dump_json(),
        _SEAL: _BLANK,
    }
    data = safetensors_bytes(patch.state_dict(), metadata)
    write_bytes(Path(path), _set_seal(data, _BLANK, hashlib.sha256(data).hexdigest(), path=Path(path)))


def load_patch(path: Path) -> Patch:
    """Read a patch file; it needs nothing beside it.

    Raises:
        PatchError: missing, cut, changed in any bit, or of another format version.
    """
    from safetensors.torch import load

    from .prompts import Patch

    path = Path(path)
    data, record = _read_sealed(path)
    patch = Patch(record.config, hidden_shapes=record.hidden_shapes, gate_width=record.gate_width)
    tensors = load(data)
    expected = {name: tuple(tensor.shape) for name, tensor in patch.state_dict().items()}
    if expected != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise PatchError(f"{path}: its tensors are not those its header announces")
    patch.load_state_dict(tensors, strict=True)
    patch.record = record
    return patch


def read_record(path: Path) -> PatchRecord:
    """The header alone, checked as in :func:`load_patch`; imports no torch."""
    return _read_sealed(Path(path))[1]


def _read_sealed(path: Path) -> tuple[bytes, PatchRecord]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PatchError(f"cannot read {path}: {error.strerror or error}", hint="Check the path of --patch.") from error
    metadata = _metadata(data, path)
    if _HEADER not in metadata or _SEAL not in metadata:
        raise PatchError(
            f"{path} is a safetensors file, but not a patch", hint="Patches are written by dmp patch or train."
        )
    blank = _set_seal(data, metadata[_SEAL], _BLANK, path=path)
    if hashlib.sha256(blank).hexdigest() != metadata[_SEAL]:
        raise PatchError(f"{path} was changed after it was written: its SHA-256 does not match", hint="Copy it again.")
    return data, _parse_record(metadata[_HEADER], path)


def _metadata(data: bytes, path: Path) -> dict[str, str]:
    """The ``__metadata__`` of a safetensors file: 8 bytes of little-endian length, then that much JSON."""
    damaged = PatchError(f"{path} is not a readable patch file: it is empty, cut or of another kind")
    if len(data) < 8:
        raise damaged
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise damaged
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = header.get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise damaged from error
    return metadata if isinstance(metadata, dict) else {}


def _set_seal(data: bytes, old: Any, new: str, *, path: Path) -> bytes:
    before, after = f'"{_SEAL}":"{old}"'.encode(), f'"{_SEAL}":"{new}"'.encode()
    if len(str(old)) != len(_BLANK) or data.count(before) != 1:
        raise PatchError(f"{path} was changed after it was written: its seal is not where it belongs")
    return data.replace(before, after)


def _parse_record(text: str, path: Path) -> PatchRecord:
    try:
        fields = json.loads(text)
        version = fields.get("format_version")
        if version != _VERSION:
            raise PatchError(
                f"{path} has format version {version}; this dmp reads version {_VERSION}", hint="Update dmp."
            )
        return PatchRecord(**fields)
    except (ValueError, ValidationError, AttributeError, TypeError) as error:
        raise PatchError(f"{path}: its header cannot be understood: {error}") from error
