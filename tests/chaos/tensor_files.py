"""Safetensors files written by hand, so that anything can be expressed, also what no library would write."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .forged_json import hostile

_TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    **{"U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
}
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_ODD = ("F8_E4M3", "F8_E5M2", "U16", "U32", "U64", "C64", "F4", "F128", "STRING", "", "f32", "F32 ", "torch.float32")


@dataclass(frozen=True)
class TensorFile:
    """The parts of a safetensors file."""

    metadata: dict[str, Any]
    entries: dict[str, Any]  # name -> {"dtype", "shape", "data_offsets"}
    body: bytes

    def header(self) -> bytes:
        about = {"__metadata__": self.metadata} if self.metadata else {}
        return json.dumps({**about, **self.entries}, separators=(",", ":")).encode()

    def data(self, *, header: bytes | None = None, length: int | None = None) -> bytes:
        """The file. ``header`` and ``length`` stand for what the parts would give."""
        header = self.header() if header is None else header
        return struct.pack("<Q", len(header) if length is None else length) + header + self.body


def parse(data: bytes) -> TensorFile:
    """The parts of a file. Raises ValueError or struct.error if it is none."""
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(data[8 : 8 + length])
    metadata = content.pop("__metadata__", {})
    return TensorFile(metadata, content, data[8 + length :])


def values_of(file: TensorFile) -> dict[str, torch.Tensor]:
    """The tensors as 64-bit numbers, read as their entries say: what a reader must find."""
    found = {}
    for name, entry in file.entries.items():
        first, end = entry["data_offsets"]
        raw = torch.frombuffer(bytearray(file.body[first:end]), dtype=torch.uint8) if end > first else torch.empty(0)
        typed = raw.view(_TYPES[entry["dtype"]]) if end > first else raw
        found[name] = typed.reshape(entry["shape"]).double()
    return found


def retype(file: TensorFile, rng: random.Random) -> TensorFile:
    """One tensor said to be of another type, its bytes as they are or made to fit."""
    name = rng.choice(list(file.entries))
    entry = file.entries[name]
    dtype = rng.choice((*SIZES, *_ODD))
    changed = {**entry, "dtype": dtype}
    if dtype in SIZES and SIZES[dtype] != SIZES[entry["dtype"]] and rng.random() < 0.7:
        count = int(np.prod(entry["shape"]))
        return lay_out(file, {name: (dtype, entry["shape"], rng.randbytes(count * SIZES[dtype]))})
    return replace(file, entries={**file.entries, name: changed})


def lay_out(file: TensorFile, new: dict[str, tuple[str, list[int], bytes] | None]) -> TensorFile:
    """``file`` with tensors added or replaced by (dtype, shape, bytes), or left out (None); offsets follow."""
    parts: dict[str, tuple[str, list[int], bytes]] = {}
    for name, entry in file.entries.items():
        first, end = entry["data_offsets"]
        parts[name] = (entry["dtype"], entry["shape"], file.body[first:end])
    for name, part in new.items():
        if part is None:
            parts.pop(name, None)
        else:
            parts[name] = part
    entries, body = {}, b""
    for name, (dtype, shape, raw) in parts.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    return replace(file, entries=entries, body=body)


def reshape(file: TensorFile, rng: random.Random) -> TensorFile:
    """One tensor with another shape, which its bytes fit or not."""
    name = rng.choice(list(file.entries))
    shape = list(file.entries[name]["shape"])
    count = int(np.prod(shape))
    others: list[Any] = [[count], shape[::-1], [1, *shape], [*shape, 1], [0], [], [count, 0], [2, count]]
    others += [[10**12], [2**32, 2**32], [2**63, 2], [-1, -count], [-1], [0.5], ["3"], None, [10**30], [1] * 1000]
    return _change(file, name, shape=rng.choice(others))


def move(file: TensorFile, rng: random.Random) -> TensorFile:
    """One tensor elsewhere: over another, with a hole, backward, beyond the end, or of no sense."""
    name = rng.choice(list(file.entries))
    first, end = file.entries[name]["data_offsets"]
    size, total = end - first, len(file.body)
    others: list[Any] = [[0, size], [end, first], [first + 4, end + 4], [total, total + size], [first, first]]
    others += [[-size, 0], [first], [], None, [first, 2**63], [2**64 - size, 2**64], [first + 0.5, end], ["0", size]]
    return _change(file, name, data_offsets=rng.choice(others))


def rename(file: TensorFile, rng: random.Random) -> TensorFile:
    names = list(file.entries)
    old = rng.choice(names)
    new = rng.choice(
        ("", "x", "a\0b", "\ud800", "x" * 100_000, old.upper(), old + " ", rng.choice(names), "__metadata__")
    )
    return replace(file, entries={(new if name == old else name): entry for name, entry in file.entries.items()})


def lose(file: TensorFile, rng: random.Random) -> TensorFile:
    return lay_out(file, {rng.choice(list(file.entries)): None})


def add(file: TensorFile, rng: random.Random) -> TensorFile:
    name = rng.choice(("x", "gate.weight2", "prompts.99", "0.exp_avg", "\u202e", "x.y.z", "0", ""))
    return lay_out(file, {name: ("F32", [2], rng.randbytes(8))})


def add_many(file: TensorFile, rng: random.Random) -> TensorFile:
    count = rng.choice((1_000, 20_000))
    more = {f"n.{i}": {"dtype": "F32", "shape": [0], "data_offsets": [len(file.body)] * 2} for i in range(count)}
    return replace(file, entries={**file.entries, **more})


def not_finite(file: TensorFile, rng: random.Random) -> TensorFile:
    name = rng.choice([n for n, e in file.entries.items() if e["dtype"] == "F32"] or list(file.entries))
    first, end = file.entries[name]["data_offsets"]
    body = bytearray(file.body)
    at = first + 4 * rng.randrange(max(1, (end - first) // 4))  # numbers of other types just change
    body[at : at + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), -float("inf"))))
    return replace(file, body=bytes(body))


def other_numbers(file: TensorFile, rng: random.Random) -> TensorFile:
    """Every byte of the tensors drawn anew: numbers of any size."""
    return replace(file, body=rng.randbytes(len(file.body)))


def cut_body(file: TensorFile, rng: random.Random) -> TensorFile:
    return replace(file, body=file.body[: rng.randrange(len(file.body))])


def longer_body(file: TensorFile, rng: random.Random) -> TensorFile:
    return replace(file, body=file.body + rng.randbytes(rng.choice((1, 4, 4096))))


def odd_entry(file: TensorFile, rng: random.Random) -> TensorFile:
    name = rng.choice(list(file.entries))
    return replace(file, entries={**file.entries, name: hostile(rng)})


def odd_metadata(file: TensorFile, rng: random.Random) -> TensorFile:
    key = rng.choice([*file.metadata, "x"])
    return replace(file, metadata={**file.metadata, key: hostile(rng)})


TENSOR_WAYS: dict[str, Callable[[TensorFile, random.Random], TensorFile]] = {
    way.__name__: way
    for way in (
        *(retype, reshape, move, rename, lose, add, add_many, not_finite, other_numbers, cut_body, longer_body),
        *(odd_entry, odd_metadata),
    )
}


def lie_about_length(file: TensorFile, rng: random.Random) -> bytes:
    """The file with another length of its header, or with a header that is not JSON as libraries write it."""
    header = file.header()
    length = len(header)
    lies = (0, 1, length - 1, length + 1, length + len(file.body), 2**63, 2**64 - 1, 10**9, 100_000_001)
    texts = (b" " * 64 + header, header + b" " * 64, b"[" * 100_000 + b"]" * 100_000, b"{}", b"[]", header[:-1], b"")
    return file.data(length=rng.choice(lies)) if rng.random() < 0.6 else file.data(header=rng.choice(texts))


def _change(file: TensorFile, name: str, **fields: Any) -> TensorFile:
    return replace(file, entries={**file.entries, name: {**file.entries[name], **fields}})
