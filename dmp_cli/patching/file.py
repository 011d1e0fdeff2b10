"""Read and write a patch as one safetensors file: its tensors, a JSON header, and a seal over both."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import PatchRecord
from ..errors import PatchError
from ..storage import Header, check_types, parse_json, read_header, safetensors_bytes, write_bytes
from .layout import find_contradiction, find_differences, patch_shapes
from .seal import BLANK, SEAL, check_seal, seal
from .tuned_file import TUNED

if TYPE_CHECKING:  # reading a header must not import torch, which takes seconds
    from .prompts import Patch

_HEADER = "dmp.header"
_VERSION = 1
_TYPES = ("F32", "F16", "BF16", "F64")


def save_patch(path: str | Path, patch: Patch) -> None:
    """Write ``patch`` with its ``record`` to ``path``, whole or not at all.

    Raises:
        PatchError: the patch has no record, so the file could not name its backbone.
        DMPError: the disk is full or ``path`` cannot be written.
    """
    write_bytes(Path(path), _sealed(patch, Path(path)))


def sha256_of_patch(patch: Patch) -> str:
    """SHA-256 of the file that :func:`save_patch` writes. Raises PatchError as that does."""
    return hashlib.sha256(_sealed(patch, Path("patch.safetensors"))).hexdigest()


def _sealed(patch: Patch, path: Path) -> bytes:
    """The bytes of a patch file; ``path`` is for messages."""
    if patch.record is None:
        raise PatchError(
            "this patch does not know its backbone", hint="Make it for a backbone that load_backbone returned."
        )
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{patch.record.backbone.family}/dmp",
        "modelspec.implementation": "dmp-cli",
        "modelspec.title": f"DMP patch for {patch.record.backbone.name or patch.record.backbone.family}",
        _HEADER: patch.record.model_dump_json(),
        SEAL: BLANK,
    }
    return seal(safetensors_bytes(patch.state_dict(), metadata), path=path, kind=PatchError)


def load_patch(path: str | Path) -> Patch:
    """Read a patch file. It needs no other file.

    The seal is a checksum: it tells damage, not who wrote the file. Anybody can seal a file anew. So all that the
    header claims is compared with the tensors that are there before memory is taken for it.

    Raises:
        PatchError: the file is missing, cut, changed in any bit, of another format version, or contradicts itself; or
            a tensor holds NaN or infinity.
    """
    from ..storage import check_finite, read_safetensors
    from .prompts import Patch

    path = Path(path)
    _, record = _read_sealed(path)
    tensors, _ = read_safetensors(path, kind=PatchError)
    check_finite(tensors, source=path, kind=PatchError)
    patch = Patch(
        record.config,
        hidden_shapes=record.hidden_shapes,
        gate_width=record.gate_width,
        expert_layers=record.expert_layers or (),
    )
    patch.load_state_dict(tensors, strict=True)
    patch.record = record
    return patch


def read_record(path: Path) -> PatchRecord:
    """Read the header of a patch file, checked as in :func:`load_patch`. It does not import torch."""
    return _read_sealed(Path(path))[1]


def _read_sealed(path: Path) -> tuple[Header, PatchRecord]:
    """The header of a patch file whose seal is right and whose tensors are those that its record describes."""
    hint = "Check the path of --patch, or copy the file again."
    header = read_header(path, kind=PatchError, hint=hint, what="patch file")
    metadata = header.metadata
    if TUNED in metadata:
        raise PatchError(
            f"{path} holds tuned weights of a backbone, and is not a patch", hint="Give it with --adapter."
        )
    if _HEADER not in metadata or SEAL not in metadata:
        raise PatchError(
            f"{path} is a safetensors file, but not a patch", hint="dmp patch and dmp train write patches."
        )
    check_seal(path, header, kind=PatchError)
    record = _parse_record(metadata[_HEADER], path)
    _check_claims(header, record, path)
    return header, record


def _parse_record(text: str, path: Path) -> PatchRecord:
    name = f"the header of {path}"
    fields = parse_json(text, name=name, kind=PatchError, paths=True)
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if version != _VERSION:
        raise PatchError(
            f"{path} has format version {version!r:.40}; this dmp reads version {_VERSION}", hint="Update dmp."
        )
    return check_types(PatchRecord, fields, name=name, kind=PatchError)


def _check_claims(header: Header, record: PatchRecord, path: Path) -> None:
    """Raise PatchError if the tensors are not those that the record describes."""
    config, shapes, layers = record.config, record.hidden_shapes, record.expert_layers or ()
    wrong = find_contradiction(config, hidden_shapes=shapes, expert_layers=layers)
    if wrong is None:
        expected = patch_shapes(config, hidden_shapes=shapes, gate_width=record.gate_width, expert_layers=layers)
        wrong = find_differences(header.shapes, expected)
    odd = next((name for name, entry in header.tensors.items() if entry.dtype not in _TYPES), None)
    if wrong is None and odd is not None:
        wrong = f"{odd} holds {header.tensors[odd].dtype}, not floating-point numbers"
    if wrong is not None:
        raise PatchError(
            f"{path}: its tensors are not those that its header describes: {wrong}",
            hint="It was not written by dmp, or was changed and sealed anew.",
        )
