"""Read and write a patch as one safetensors file: its tensors, a JSON header, and a SHA-256 over both.

A safetensors file with a flipped bit loads without an error. A patch file therefore carries a seal: the SHA-256 of the
whole file, computed with the seal's 64 characters set to zero. A file with any changed bit is refused.
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

if TYPE_CHECKING:  # reading a header must not import torch, which takes seconds
    from .prompts import Patch

_HEADER, _SEAL = "dmp.header", "dmp.sha256"
_BLANK = "0" * 64
_VERSION = 1


def save_patch(path: Path, patch: Patch) -> None:
    """Write ``patch`` with its ``record`` to ``path``, whole or not at all.

    Raises:
        PatchError: the patch has no record, so the file could not name its backbone.
        DMPError: the disk is full or ``path`` cannot be written.
    """
    if patch.record is None:
        raise PatchError("this patch does not know its backbone", hint="Make it with dmp_cli.patching.create_patch.")
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
    """Read a patch file. It needs no other file.

    Raises:
        PatchError: the file is missing, cut, changed in any bit, or of another format version.
    """
    from safetensors.torch import load

    from .prompts import Patch

    path = Path(path)
    data, record = _read_sealed(path)
    patch = Patch(record.config, hidden_shapes=record.hidden_shapes, gate_width=record.gate_width)
    tensors = load(data)
    expected = {name: tuple(tensor.shape) for name, tensor in patch.state_dict().items()}
    if expected != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise PatchError(f"{path}: its tensors are not those that its header describes")
    patch.load_state_dict(tensors, strict=True)
    patch.record = record
    return patch


def read_record(path: Path) -> PatchRecord:
    """Read the header of a patch file, checked as in :func:`load_patch`. It does not import torch."""
    return _read_sealed(Path(path))[1]


def _read_sealed(path: Path) -> tuple[bytes, PatchRecord]:
    """The bytes and the header of a patch file whose seal is right."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PatchError(f"cannot read {path}: {error.strerror or error}", hint="Check the path of --patch.") from error
    metadata = _metadata(data, path)
    if _HEADER not in metadata or _SEAL not in metadata:
        raise PatchError(
            f"{path} is a safetensors file, but not a patch", hint="dmp patch and dmp train write patches."
        )
    blank = _set_seal(data, metadata[_SEAL], _BLANK, path=path)
    if hashlib.sha256(blank).hexdigest() != metadata[_SEAL]:
        raise PatchError(f"{path} was changed after it was written: its SHA-256 does not match", hint="Copy it again.")
    return data, _parse_record(metadata[_HEADER], path)


def _metadata(data: bytes, path: Path) -> dict[str, str]:
    """The ``__metadata__`` of a safetensors file: 8 bytes hold the length, little-endian, of the JSON that follows."""
    damaged = PatchError(f"{path} is not a readable patch file: it is empty, cut or of another format")
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
    """``data`` with the seal ``old`` replaced by ``new``. Raises PatchError if ``old`` does not stand there once."""
    before, after = f'"{_SEAL}":"{old}"'.encode(), f'"{_SEAL}":"{new}"'.encode()
    if len(str(old)) != len(_BLANK) or data.count(before) != 1:
        raise PatchError(f"{path} was changed after it was written: its seal is not in its place")
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
        raise PatchError(f"cannot understand the header of {path}: {error}") from error
