"""The seal of a safetensors file: the SHA-256 of the whole file, with the seal's own 64 characters set to zero.

A safetensors file with a flipped bit loads without an error; a sealed one is refused. The seal is no signature: whoever
changes a file can seal it anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import DMPError
from ..storage import Header

SEAL = "dmp.sha256"  # its key in the file's metadata
BLANK = "0" * 64  # its value in a file that is not sealed yet


def seal(data: bytes, *, path: Path, kind: type[DMPError]) -> bytes:
    """The file ``data``, whose seal is blank, sealed."""
    return _exchange(data, BLANK, hashlib.sha256(data).hexdigest(), path=path, kind=kind)


def check_seal(path: Path, header: Header, *, kind: type[DMPError]) -> None:
    """Raise ``kind`` if a bit of the sealed file ``path`` has changed."""
    own, digest = header.metadata[SEAL], hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(_exchange(file.read(header.begin), own, BLANK, path=path, kind=kind))
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    if digest.hexdigest() != own:
        raise kind(f"{path} was changed after it was written: its SHA-256 does not match", hint="Copy it again.")


def _exchange(data: bytes, old: str, new: str, *, path: Path, kind: type[DMPError]) -> bytes:
    """``data`` with the seal ``old`` replaced by ``new``. Raises ``kind`` if ``old`` does not stand there once."""
    before, after = f'"{SEAL}":"{old}"'.encode(), f'"{SEAL}":"{new}"'.encode()
    if len(old) != len(BLANK) or data.count(before) != 1:
        raise kind(f"{path} was changed after it was written: its seal is not in its place")
    return data.replace(before, after)
