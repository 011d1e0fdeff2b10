"""Arrays of an .npz: the zip, the array's header and the bytes must agree before memory is taken."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dmp_cli.errors import MetricError
from dmp_cli.storage.arrays import HEADER_BYTES, array_header, list_entries, read_arrays

ARRAYS = {
    "mu": np.arange(5.0),
    "sigma": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "large": np.arange(HEADER_BYTES, dtype=np.int32),
    "text": np.array("größe"),
    "empty": np.zeros((0, 3)),
}


def as_npy(header: str, body: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode() + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + body


def write(path: Path, data: bytes, *, method: int = zipfile.ZIP_DEFLATED, names: tuple[str, ...] = ("a",)) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_round_trip(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    read = read_arrays(tmp_path / "a.npz", [*ARRAYS, "missing"], kind=MetricError)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        assert np.array_equal(read[name], array)
        read[name][...] = array  # they can be written
    assert list(list_entries(tmp_path / "a.npz", kind=MetricError)) == [f"{name}.npy" for name in ARRAYS]


HEADERS = {
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}": "is not as long as that",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}": "is not as long as that",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}": "is not as long as that: 16 bytes are there",
    "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}": "it holds object, not numbers",
    "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,)}": "not numbers",
    "{'descr': '<f8', 'shape': (2,)}": "not a readable",
    "(" * 5000: "not a readable",
    "": "not a readable",
}


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_that_lie(tmp_path, header):
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        with pytest.raises(MetricError, match=r"a\.npz is not a readable \.npz file: ") as caught:
            read_arrays(write(tmp_path / "a.npz", as_npy(header, bytes(16)), method=method), ["a"], kind=MetricError)
        assert HEADERS[header] in caught.value.message


def test_a_bomb_is_not_unpacked(tmp_path):
    zeros = as_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (12500000,)}", bytes(100_000_000))
    with pytest.raises(MetricError, match=r"a\.npy unpacks to 1,0\d\d times its size"):
        read_arrays(write(tmp_path / "a.npz", zeros), ["a"], kind=MetricError)


def test_damage_is_one_error(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, mu=np.arange(50.0))
    data = bytearray(buffer.getvalue())
    for place in range(0, len(data), 7):
        damaged = bytes([*data[:place], data[place] ^ 0xFF, *data[place + 1 :]])
        (tmp_path / "a.npz").write_bytes(damaged)
        with contextlib.suppress(MetricError):
            found = read_arrays(tmp_path / "a.npz", ["mu"], kind=MetricError)
            assert "mu" not in found or np.array_equal(found["mu"], np.arange(50.0))


def test_what_is_no_npz_of_this_kind(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        write(tmp_path / "a.npz", b"", names=("a", "a"))
    for place, reason in {"a.npz": "2 entries, 1 names", "none": "No such file", ".": "a folder"}.items():
        with pytest.raises(MetricError, match=reason):
            read_arrays(tmp_path / place, ["a"], kind=MetricError)


def test_the_header_of_an_array():
    buffer = io.BytesIO()
    np.save(buffer, ARRAYS["sigma"])
    header = array_header(buffer.getvalue(), size=len(buffer.getvalue()))
    assert header == ((2, 3), np.dtype(np.float32), True, len(buffer.getvalue()) - 24)
