"""Read and write tuned weights as one safetensors file: what was learnt and nothing else, a record, and a seal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import CodecRecord, TunedRecord
from ..errors import CheckpointError, ConfigError
from ..storage import Header, check_types, parse_json, read_header, safetensors_bytes, write_bytes
from .layout import find_differences
from .seal import BLANK, SEAL, check_seal, seal

if TYPE_CHECKING:  # reading a record must not import torch, which takes seconds
    from ..backbones import Backbone
    from .tuned import Tuned

TUNED = "dmp.tuned"  # the record's key in the file's metadata
_VERSION = 1
_TYPES = ("F32", "F16", "BF16", "F64")
_HINT = "Check the path of --adapter, or copy the file again."


def save_tuned(
    path: Path, tuned: Tuned, *, codec: CodecRecord, image_size: int | str, training: Mapping[str, Any]
) -> None:
    """Write ``tuned`` to ``path``, whole or not at all. The same content gives the same bytes.

    Args:
        codec: codec of the training images.
        image_size: of the training images in pixels: a side, or width x height, such as 832x1216.
        training: the record of the training.

    Raises:
        ConfigError: the backbone was made in code, so the file could not name it.
    """
    if tuned.backbone is None:
        raise ConfigError("these weights do not know their backbone", hint="Load it with load_backbone.")
    about: dict[str, Any] = {"codec": codec, "image_size": image_size, "training": dict(training)}
    record = TunedRecord(method=tuned.method, backbone=tuned.backbone, **about)
    metadata = {"format": "pt", TUNED: record.model_dump_json(), SEAL: BLANK}
    data = safetensors_bytes(tuned.parameters, metadata)
    write_bytes(Path(path), seal(data, path=Path(path), kind=CheckpointError))


def load_tuned(path: Path, backbone: Backbone) -> Tuned:
    """Put the weights in the file ``path`` into ``backbone``, frozen. All checks come before the first change.

    Raises:
        CheckpointError: the file is missing, changed in any bit, of another backbone, or contradicts itself; or a
            tensor holds NaN or infinity.
    """
    from ..storage import check_finite, read_safetensors
    from .identity import check_digest
    from .tuned import install, tuned_shapes

    path = Path(path)
    header, record = _read_sealed(path)
    check_digest(backbone, record.backbone, what=f"{path} was")
    _check_claims(header, tuned_shapes(backbone, record.method), path)
    tensors, _ = read_safetensors(path)
    values = {name: tensor.float() for name, tensor in tensors.items()}
    check_finite(values, source=path)
    return install(backbone, record.method, values)


def read_tuned(path: Path) -> tuple[TunedRecord, int]:
    """The record of a file of tuned weights and how many numbers it holds. It does not import torch.

    Raises:
        CheckpointError: the file is missing, changed in any bit, or of another format version.
    """
    from math import prod

    header, record = _read_sealed(Path(path))
    return record, sum(prod(shape) for shape in header.shapes.values())


def is_tuned(path: Path) -> bool:
    """Whether ``path`` is a file of tuned weights by what its header says; False where it cannot be read."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        return TUNED in read_header(path).metadata
    except CheckpointError:
        return False


def _read_sealed(path: Path) -> tuple[Header, TunedRecord]:
    header = read_header(path, hint=_HINT, what="file of tuned weights")
    metadata = header.metadata
    if TUNED not in metadata or SEAL not in metadata:
        hint = "Give --adapter what dmp train --method lora, dora, bitfit or difffit wrote."
        raise CheckpointError(f"{path} is a safetensors file, but holds no tuned weights", hint=hint)
    check_seal(path, header, kind=CheckpointError)
    name = f"the header of {path}"
    fields = parse_json(metadata[TUNED], name=name, kind=CheckpointError, paths=True)
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if version != _VERSION:
        raise CheckpointError(
            f"{path} has format version {version!r:.40}; this dmp reads version {_VERSION}", hint="Update dmp."
        )
    return header, check_types(TunedRecord, fields, name=name, kind=CheckpointError)


def _check_claims(header: Header, expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Raise CheckpointError if the tensors are not those that the method learns of the backbone."""
    wrong = find_differences(header.shapes, expected)
    odd = next((name for name, entry in header.tensors.items() if entry.dtype not in _TYPES), None)
    if wrong is None and odd is not None:
        wrong = f"{odd} holds {header.tensors[odd].dtype}, not floating-point numbers"
    if wrong is not None:
        raise CheckpointError(f"{path} does not fit the backbone; nothing was loaded: {wrong}", hint=_HINT)
