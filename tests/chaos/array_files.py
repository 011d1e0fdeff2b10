"""Files of arrays (.npz) forged by hand: other shapes and types, headers that lie, and zips that grow."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np

Arrays = dict[str, np.ndarray]
Seal = Callable[[Arrays], Arrays] | None
_SHAPES = ((), (0,), (0, 0), (1,), (3, 5), (5, 3), (1, 1, 1), (2,) * 20, (1, 0, 7))
_TYPES = ("<f2", "<f4", "<f8", ">f8", "<i8", "<u1", "?", "<c16", "<U5", "S3", "<M8[s]", "<f8,<i4")
_NUMBERS = (float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 1e200, 0.0, -1.0)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zipped(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npz(arrays: Arrays) -> bytes:
    return zipped({f"{name}.npy": npy(array) for name, array in arrays.items()})


def _sealed(arrays: Arrays, seal: Seal) -> Arrays:
    return arrays if seal is None else seal(arrays)


def _pick(arrays: Arrays, rng: random.Random) -> str:
    return rng.choice([name for name in arrays if name != "provenance"])


def another_shape(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    return npz(_sealed({**arrays, _pick(arrays, rng): np.ones(rng.choice(_SHAPES))}, seal))


def another_type(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    name, dtype = _pick(arrays, rng), np.dtype(rng.choice(_TYPES))
    array = arrays[name]
    data = rng.randbytes(array.size * dtype.itemsize)
    return npz(_sealed({**arrays, name: np.frombuffer(data, dtype).reshape(array.shape)}, seal))


def odd_numbers(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    name = _pick(arrays, rng)
    array = arrays[name].copy()
    if array.size and array.dtype.kind == "f":
        array.reshape(-1)[rng.randrange(array.size)] = rng.choice(_NUMBERS[:-2])
    return npz(_sealed({**arrays, name: array}, seal))


def constant(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    name = _pick(arrays, rng)
    return npz(_sealed({**arrays, name: np.full_like(arrays[name], rng.choice(_NUMBERS))}, seal))


def longer(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    """One array repeated along its first or last axis, or cut."""
    name = _pick(arrays, rng)
    array = arrays[name]
    axis = rng.choice((0, -1))
    made = rng.choice((np.concatenate([array, array], axis), array[:1], array[:0], array[..., :1]))
    return npz(_sealed({**arrays, name: made}, seal))


def without(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    name = rng.choice(list(arrays))
    return npz(_sealed({key: value for key, value in arrays.items() if key != name}, seal))


def objects(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    """An array of Python objects, whose pickle would print."""
    array = np.array([print, {"a": 1}], dtype=object)
    members = {f"{key}.npy": npy(value) for key, value in arrays.items()}
    return zipped({**members, f"{_pick(arrays, rng)}.npy": npy(array)})


def lying_header(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    """A header of .npy that says other shapes and types than follow, or is no header at all."""
    name = _pick(arrays, rng)
    shape = rng.choice(
        ("(1000000000000,)", "(-1,)", "(2147483648, 2147483648)", "(10**5,)", "(3, 'a')", "3", "(0,)" * 99)
    )
    descr = rng.choice(("'<f8'", "'<f4'", "'|O'", "'<U100000000'", "'V0'", "[('a', '<f8')]", "'nonsense'", "'<f99'"))
    text = rng.choice(
        (
            *(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}",) * 3,
            *("{" * 5000, "[" * 9000 + "]" * 9000, "", "\0" * 64, "{'descr': '<f8'}", "1+" * 4000 + "1"),
            f"{{'descr': '<f8', 'fortran_order': {rng.choice(('True', '7', 'None'))}, 'shape': (6,), }}",
        )
    ).encode()
    length = rng.choice((len(text), len(text), 65535, 0))
    version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x09\x09"))
    data = b"\x93NUMPY" + version + struct.pack("<H", length) + text + bytes(48)
    members = {f"{key}.npy": npy(value) for key, value in _sealed(arrays, seal).items()}
    return zipped({**members, f"{name}.npy": data})


def bomb(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    """A member of some megabytes in the file that is gigabytes when read: an array of zeros, or noise behind it."""
    name = _pick(arrays, rng)
    side = rng.choice((12_000, 13_000))
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({side}, {side}), }}".ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    size = len(start) + side * side * 8
    members = {f"{key}.npy": npy(value) for key, value in arrays.items() if key != name}
    return _with_bomb(members, f"{name}.npy", start, size)


def many_members(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    members = {f"{key}.npy": npy(value) for key, value in _sealed(arrays, seal).items()}
    return zipped({**members, **{f"{i}.npy": b"" for i in range(rng.choice((100, 5_000)))}})


def names_twice(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    """A member under a name that is there already: which one counts?"""
    arrays = _sealed(arrays, seal)
    name = _pick(arrays, rng)
    buffer = io.BytesIO(npz(arrays))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.infolist()
        archive.NameToInfo.pop(f"{name}.npy", None)  # so that zipfile gives no warning
        archive.writestr(
            f"{name}.npy", npy(np.full_like(arrays[name], 7) if arrays[name].dtype.kind == "f" else arrays[name])
        )
    return buffer.getvalue()


def bare_npy(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    return npy(arrays[_pick(arrays, rng)])


def encrypted(arrays: Arrays, rng: random.Random, seal: Seal) -> bytes:
    """Members marked as encrypted, or packed by a method that zipfile does not know."""
    data = bytearray(npz(_sealed(arrays, seal)))
    mark = rng.choice((b"PK\x01\x02", b"PK\x03\x04"))
    at = data.index(mark)
    field = at + (8 if mark == b"PK\x01\x02" else 6) + rng.choice((0, 2))
    data[field] |= rng.choice((1, 99))
    return bytes(data)


ARRAY_WAYS: dict[str, Callable[[Arrays, random.Random, Seal], bytes]] = {
    way.__name__: way
    for way in (
        *(another_shape, another_type, odd_numbers, constant, longer, without, objects, lying_header, bomb),
        *(many_members, names_twice, bare_npy, encrypted),
    )
}
_ZEROS = 1 << 24


def deflated(start: bytes, size: int) -> tuple[bytes, int]:
    """``start`` and zeros up to ``size`` bytes, packed by deflate, and the CRC-32 of what comes out."""
    packer, crc, left = zlib.compressobj(9, zlib.DEFLATED, -15), zlib.crc32(start), size - len(start)
    parts = [packer.compress(start), packer.flush(zlib.Z_FULL_FLUSH)]
    # After a full flush the same zeros pack to the same bytes, so they are packed once.
    zeros = bytes(_ZEROS)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(left // _ZEROS):
        parts.append(block)
        crc = zlib.crc32(zeros, crc)
    rest = zeros[: left % _ZEROS]
    return b"".join([*parts, packer.compress(rest), packer.flush()]), zlib.crc32(rest, crc)


def _with_bomb(members: dict[str, bytes], name: str, start: bytes, size: int) -> bytes:
    """A zip of ``members`` and of one that grows to ``size`` bytes; it is written by hand, to be made quickly."""
    packed, crc = deflated(start, size)
    return zip_by_hand(
        [(key, value, len(value), zlib.crc32(value), 0) for key, value in members.items()]
        + [(name, packed, size, crc, 8)]
    )


def zip_by_hand(entries: list[tuple[str, bytes, int, int, int]]) -> bytes:
    """A zip of (name, packed bytes, size that it says, CRC-32 that it says, method); sizes beyond 4 GB in zip64."""
    body, directory = b"", b""
    for name, packed, size, crc, method in entries:
        raw, short, more = name.encode(), min(size, 0xFFFFFFFF), b""
        if size >= 0xFFFFFFFF:
            more = struct.pack("<HHQ", 1, 8, size)
        common = struct.pack("<HHHHHIIIHH", 45, 0x800, method, 0, 33, crc, len(packed), short, len(raw), len(more))
        directory += b"PK\x01\x02" + struct.pack("<H", 45) + common
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + raw + more
        wide = struct.pack("<HHQQ", 1, 16, size, len(packed)) if more else b""
        head = struct.pack("<HHHHHII", 45, 0x800, method, 0, 33, crc, 0xFFFFFFFF if more else len(packed))
        body += b"PK\x03\x04" + head + struct.pack("<IHH", short, len(raw), len(wide)) + raw + wide + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end
