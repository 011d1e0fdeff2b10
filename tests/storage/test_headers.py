"""Headers of safetensors files: what they claim is compared with the bytes that are there, and nothing else is read."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dmp_cli.errors import CheckpointError, PatchError
from dmp_cli.storage.headers import read_header
from dmp_cli.storage.weights import read_safetensors


def write(path: Path, header: object, body: int = 8, *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(body))
    return path


def entry(shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_a_sound_file(tmp_path):
    tensors = {"b": torch.ones(2, 3), "a": torch.zeros((), dtype=torch.bfloat16), "c": torch.ones(0, 4)}
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    header = read_header(tmp_path / "a.safetensors")
    assert header.shapes == {"a": (), "b": (2, 3), "c": (0, 4)}
    assert header.metadata == {"format": "pt"}
    read, metadata = read_safetensors(tmp_path / "a.safetensors")
    assert metadata == {"format": "pt"}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


DAMAGE = {
    "another length": ({"a": entry(offsets=(0, 12))}, "its tensor a is not where and as long as its header says"),
    "a gap": ({"a": entry(offsets=(4, 12))}, "its tensor a is not where"),
    "overlap": ({"a": entry(), "b": entry(offsets=(4, 12))}, "its tensor b is not where"),
    "backwards": ({"a": entry(offsets=(8, 0))}, "its tensor a is not where"),
    "of 10^12": (
        {"a": entry(shape=(10**12,), offsets=(0, 4 * 10**12))},
        "describes 4,000,000,000,000 bytes of tensors",
    ),
    "of 10^30": ({"a": entry(shape=(10**30,))}, "a.shape.0: Input should be less than"),
    "product beyond": ({"a": entry(shape=(2**62, 2**62, 0), offsets=(0, 0))}, "describes 0 bytes of tensors, and 8"),
    "negative": ({"a": entry(shape=(-2, -1))}, "greater than or equal to 0"),
    "a fraction": ({"a": entry(shape=(2.0,))}, "a.shape.0: Input should be a valid integer"),
    "many sides": ({"a": entry(shape=(1,) * 100)}, "at most 64"),
    "unknown type": ({"a": entry(dtype="F7")}, "unknown type F7"),
    "no type": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, "a.dtype: Field required"),
    "more": ({"a": {**entry(), "x": 1}}, "a.x: Extra inputs"),
    "a list": ([1], "its header is not a JSON object"),
    "metadata": ({"__metadata__": {"a": 1}, "a": entry()}, "a: Input should be a valid string"),
    "twice": (b'{"a":1,"a":2}', "the key 'a' stands twice"),
    "deep": (b"[" * 100_000, "64 levels deep"),
    "no text": (b"\xff\xfe{}", "UTF-16"),
    "surrogate": (b'{"__metadata__":{"a":"\\ud800"}}', "half of a surrogate pair"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_cannot_be(tmp_path, kind):
    header, reason = DAMAGE[kind]
    with pytest.raises(PatchError, match=r"a\.safetensors is not a readable safetensors file: ") as caught:
        read_header(write(tmp_path / "a.safetensors", header), kind=PatchError)
    assert reason in caught.value.message


def test_lengths_that_lie(tmp_path):
    for length in (10**6, 2**63, 2**64 - 1):
        with pytest.raises(CheckpointError, match="it is empty, cut or of another format"):
            read_header(write(tmp_path / "a.safetensors", {}, length=length))
    for size in (0, 3, 8):
        (tmp_path / "a.safetensors").write_bytes(bytes(size))
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            read_header(tmp_path / "a.safetensors")


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    write(tmp_path / "a.safetensors", b"", length=1 << 31)
    os.truncate(tmp_path / "a.safetensors", 1 << 32)
    with pytest.raises(CheckpointError, match="cut or of another format"):
        read_header(tmp_path / "a.safetensors")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, reason in {"pipe": "a FIFO", ".": "a folder", "none": "No such file"}.items():
        with pytest.raises(CheckpointError, match=reason):
            read_header(tmp_path / place)
