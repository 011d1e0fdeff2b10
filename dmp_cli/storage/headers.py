"""The header of a safetensors file, checked against the file's size before a tensor of it is read.

The file: 8 bytes with the length of the header, little-endian; the header, JSON; the bytes of the tensors, one behind
the other without gaps.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import CheckpointError, DMPError
from .limits import check_file
from .structured import parse_json
from .text import decode_text

_LONGEST = 100_000_000  # bytes of a header; the limit of the safetensors library
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}
_METADATA = "__metadata__"
_Size = Annotated[int, Field(ge=0, lt=1 << 63, strict=True)]


class Entry(BaseModel):
    """One tensor, as the header describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    shape: tuple[_Size, ...] = Field(max_length=64)
    data_offsets: tuple[_Size, _Size]


class Header(NamedTuple):
    """What a safetensors file says of itself."""

    metadata: dict[str, str]
    tensors: Mapping[str, Entry]
    begin: int  # of the first tensor's bytes, from the start of the file

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.tensors.items()}


_METADATA_TYPE = TypeAdapter(dict[str, str])
_TENSORS_TYPE = TypeAdapter(dict[str, Entry])


def read_header(
    path: Path, *, kind: type[DMPError] = CheckpointError, hint: str | None = None, what: str = "safetensors file"
) -> Header:
    """The header of a safetensors file, which messages call ``what``. No tensor is read.

    Raises:
        DMPError: of ``kind``: the file is missing, cut or damaged, or its header claims what its bytes cannot hold.
    """
    damaged = _Damage(str(path), kind, hint, what)
    check_file(path, kind=kind, hint=hint)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(size - 8, _LONGEST):
                raise damaged.error("it is empty, cut or of another format")
            data = file.read(length)
    except OSError as error:
        raise kind(f"cannot read {path}: {error.strerror or error}", hint=hint) from error
    return _parse(data, size, damaged)


class _Damage(NamedTuple):
    name: str
    kind: type[DMPError]
    hint: str | None
    what: str

    def error(self, reason: str) -> DMPError:
        return self.kind(f"{self.name} is not a readable {self.what}: {reason}", hint=self.hint)


def _parse(data: bytes, size: int, damaged: _Damage) -> Header:
    try:
        text = decode_text(data.rstrip(b" "), name="its header", kind=damaged.kind)
        content = parse_json(text, name="its header", kind=damaged.kind)
    except DMPError as error:
        raise damaged.error(error.message) from error
    if not isinstance(content, dict):
        raise damaged.error("its header is not a JSON object")
    try:
        metadata = _METADATA_TYPE.validate_python(content.pop(_METADATA, {}) or {})
        tensors = _TENSORS_TYPE.validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise damaged.error(f"in its header, {place[:80]}: {problem['msg']}") from error
    _check_places(tensors, size - 8 - len(data), damaged)
    return Header(metadata, tensors, 8 + len(data))


def _check_places(tensors: Mapping[str, Entry], size: int, damaged: _Damage) -> None:
    """Raise if the tensors are not one behind the other over all ``size`` bytes, each as long as its shape says."""
    at = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in _BITS:
            raise damaged.error(f"its tensor {name[:80]} has the unknown type {entry.dtype[:20]}")
        begin, end = entry.data_offsets
        bits = math.prod(entry.shape) * _BITS[entry.dtype]
        if begin != at or bits % 8 or end - begin != bits // 8:
            raise damaged.error(f"its tensor {name[:80]} is not where and as long as its header says")
        at = end
    if at != size:
        raise damaged.error(f"its header describes {at:,} bytes of tensors, and {size:,} are there: it was cut or grew")
