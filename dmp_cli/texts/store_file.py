"""One file of a text store: what the encoders gave of k captions, their digests and sums; see ``store``.

Letters: k captions in a file, S tokens of a caption, L of these that are kept, E width of a state, P of a pooled one.
What belongs to single tokens lies end to end: ``states`` (sum of L, E), ``mask`` (sum of L,).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..data import Damaged
from ..errors import DataError
from ..storage import read_sealed, safetensors_bytes, sealed

HEADER = "dmp.texts"  # key of the metadata
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_NAMES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}  # in safetensors
_STATES, _MASK = "states", "mask"  # what the names of tokens' states and of their masks begin with
_CAPTIONS, _SUMS, _LENGTHS = "dmp.captions", "dmp.sums", "dmp.lengths."  # tensors beside those of the encoders
_MOST_TOKENS = 1 << 20  # of a caption: more than any encoder gives

Row = Mapping[str, Tensor]  # of one caption: states (S, E), mask (S,), pooled (P,) and what else its encoders give


class _FileHeader(BaseModel):
    """What a file says of itself."""

    key: str  # of its store
    names: list[str]  # of what the encoders gave


def mask_of(name: str) -> str:
    """The name of the mask that belongs to states."""
    return _MASK + name.removeprefix(_STATES)


def cut(row: Row) -> dict[str, Tensor]:
    """``row`` without the padding behind the last token that counts."""
    kept = dict(row)
    for name in row:
        if name.startswith(_STATES):
            counted = row[mask_of(name)].nonzero()
            length = int(counted[-1]) + 1 if len(counted) else 0
            kept[name], kept[mask_of(name)] = row[name][:length], row[mask_of(name)][:length]
    return kept


def file_bytes(key: str, digests: Sequence[bytes], rows: Sequence[Row], lengths: Mapping[str, Sequence[int]]) -> bytes:
    """A file of ``rows`` as :func:`cut` left them; ``lengths``: of each states, the S that each caption had before."""
    names = sorted(rows[0])
    tensors: dict[str, Tensor] = {}
    for name in names:
        own = [row[name].to(torch.uint8) if name.startswith(_MASK) else row[name] for row in rows]
        tensors[name] = torch.cat(own) if name.startswith((_STATES, _MASK)) else torch.stack(own)
    lengths = dict(sorted(lengths.items()))
    for name, whole in lengths.items():
        kept = [len(row[name]) for row in rows]
        tensors[_LENGTHS + name] = torch.tensor([kept, list(whole)], dtype=torch.int64).T.contiguous()
    tensors[_CAPTIONS] = torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(len(digests), 32)
    wholes = [[whole[number] for whole in lengths.values()] for number in range(len(rows))]
    sums = [_sum_of(row, digest, whole) for row, digest, whole in zip(rows, digests, wholes, strict=True)]
    tensors[_SUMS] = torch.tensor(sums, dtype=torch.int64)
    header = json.dumps({"key": key, "names": names})
    return safetensors_bytes(tensors, sealed(HEADER, header))


class OpenTexts:
    """One memory-mapped file of a text store, whose size, header and shapes have been checked."""

    def __init__(self, path: Path, key: str, dtype: str) -> None:
        self.path = path
        try:
            head, header = read_sealed(path, HEADER, _FileHeader)
            if header.key != key:
                raise Damaged(f"{path} belongs to another store")
            self._file: Any = safe_open(str(path), framework="pt")
            self._read_lengths(header.names, head.tensors, _NAMES[dtype])
        except (OSError, KeyError, ValueError, IndexError, RuntimeError, DataError, SafetensorError) as error:
            reason = error.message if isinstance(error, DataError) else str(error)
            raise Damaged(f"{path} is damaged: {reason}") from error

    def _read_lengths(self, names: list[str], entries: Mapping[str, Any], dtype: str) -> None:
        """Read what is small; the shape of all else must follow from it."""
        found = {name: (entry.shape, entry.dtype) for name, entry in entries.items()}
        count, states = entries[_CAPTIONS].shape[0], sorted(name for name in names if name.startswith(_STATES))
        expected: dict[str, Any] = {_CAPTIONS: ((count, 32), "U8"), _SUMS: ((count,), "I64")}
        expected |= {_LENGTHS + name: ((count, 2), "I64") for name in states}
        if not states or any(found.get(name) != told for name, told in expected.items()):
            raise DataError("its tensors are not those of a text store")
        self.names, self._sums = names, self._file.get_tensor(_SUMS).tolist()
        self.digests = [bytes(own) for own in self._file.get_tensor(_CAPTIONS).numpy()]
        self.ends: dict[str, list[int]] = {}  # of each states: where each caption's tokens end
        self.whole: dict[str, list[int]] = {}  # of each states: S of each caption
        for name in states:
            kept, whole = self._file.get_tensor(_LENGTHS + name).T
            if not bool((kept >= 0).all() and (kept <= whole).all() and (whole <= _MOST_TOKENS).all()):
                raise DataError("a caption has more tokens than there is room for")
            self.ends[name], self.whole[name] = kept.cumsum(0).tolist(), whole.tolist()
            total = self.ends[name][-1] if count else 0
            expected |= {name: ((total, entries[name].shape[1]), dtype), mask_of(name): ((total,), "U8")}
        others = (name for name in names if not name.startswith((_STATES, _MASK)))
        expected |= {name: ((count, *entries[name].shape[1:]), dtype) for name in others}
        if found != expected:
            raise DataError("its tensors are not those of a text store")

    def row(self, number: int) -> dict[str, Tensor]:
        """What the encoders gave of caption ``number``: copies, with the padding as zeros. Raises Damaged."""
        try:
            stored = {name: self._slice(name, number) for name in self.names}
        except (OSError, RuntimeError, SafetensorError) as error:
            raise Damaged(f"{self.path} is damaged: {error}") from error
        wholes = [whole[number] for whole in self.whole.values()]
        if _sum_of(stored, self.digests[number], wholes) != self._sums[number]:
            raise Damaged(f"{self.path} is damaged: caption {number} in it was changed after it was written")
        padded = {}
        for name, value in stored.items():
            states = _STATES + name.removeprefix(_MASK) if name.startswith(_MASK) else name
            whole = self.whole[states][number] if states in self.whole else len(value)
            padded[name] = _padded(value, whole)
        return {name: value.bool() if name.startswith(_MASK) else value for name, value in padded.items()}

    def _slice(self, name: str, number: int) -> Tensor:
        states = _STATES + name.removeprefix(_MASK) if name.startswith(_MASK) else name
        values = self._file.get_slice(name)
        if states not in self.ends:
            found: Tensor = values[number : number + 1][0]
            return found
        ends = self.ends[states]
        own: Tensor = values[ends[number - 1] if number else 0 : ends[number]]
        return own


def _padded(value: Tensor, length: int) -> Tensor:
    """A copy of ``value`` with zeros behind it, up to ``length``."""
    if len(value) == length:
        return value.clone()
    padded = value.new_zeros((length, *value.shape[1:]))
    padded[: len(value)] = value
    return padded


def _sum_of(row: Row, digest: bytes, wholes: Sequence[int]) -> int:
    """The CRC-32 of all that is kept of one caption; ``wholes``: S of each of its states."""
    found = zlib.crc32(digest + json.dumps(list(wholes)).encode())
    for name in sorted(row):
        value = row[name].to(torch.uint8) if row[name].dtype == torch.bool else row[name]
        if value.numel():
            found = zlib.crc32(value.contiguous().view(torch.uint8).numpy().data, found)
    return found
