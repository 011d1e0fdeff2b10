"""A header in the metadata of a safetensors file, with a sum that says whether it was changed since it was written."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from ..errors import DataError
from .headers import Header, read_header
from .structured import check_types, parse_json

_SUM = "dmp.crc32"  # key of the metadata: the CRC-32 of the header
H = TypeVar("H", bound=BaseModel)


def sealed(name: str, text: str) -> dict[str, str]:
    """Metadata with the header ``text``, which is JSON, under ``name``, and its sum."""
    return {name: text, _SUM: str(zlib.crc32(text.encode()))}


def read_sealed(path: Path, name: str, kind: type[H]) -> tuple[Header, H]:
    """What a file says of its tensors, and its header under ``name``.

    Raises:
        DataError: it is damaged, or was changed after it was written.
        KeyError: the file has no such header.
    """
    head = read_header(path, kind=DataError)
    text = head.metadata[name]
    if str(zlib.crc32(text.encode())) != head.metadata[_SUM]:
        raise DataError("its header was changed after it was written")
    content = parse_json(text, name="its header", kind=DataError)
    return head, check_types(kind, content, name="its header", kind=DataError)
