"""Ways to damage bytes, as disks, networks and editors do."""

from __future__ import annotations

import random
from collections.abc import Callable


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        changed[_place(rng, len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(rng, len(data))]


def lose_the_start(data: bytes, rng: random.Random) -> bytes:
    return data[1 + _place(rng, len(data) - 1) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = _place(rng, len(data))
    return data[:at] + rng.randbytes(rng.choice((1, 1, 2, 8, 512))) + data[at:]


def remove(data: bytes, rng: random.Random) -> bytes:
    at = _place(rng, len(data))
    return data[:at] + data[at + rng.choice((1, 1, 2, 8, 512)) :]


def swap_chunks(data: bytes, rng: random.Random) -> bytes:
    size = rng.choice((1, 4, 16, max(1, len(data) // 4)))
    size = max(1, min(size, len(data) // 2))
    one, other = sorted((rng.randrange(len(data) - size + 1), rng.randrange(len(data) - size + 1)))
    if other - one < size:
        return data[::-1]
    middle = data[one + size : other]
    return data[:one] + data[other : other + size] + middle + data[one : one + size] + data[other + size :]


def repeat_a_chunk(data: bytes, rng: random.Random) -> bytes:
    one, other = sorted((_place(rng, len(data)), _place(rng, len(data))))
    return data[:other] + data[one:other] * rng.choice((1, 2, 30)) + data[other:]


def zero_a_chunk(data: bytes, rng: random.Random) -> bytes:
    at, size = _place(rng, len(data)), rng.choice((1, 4, 64, 512, 4096))
    size = min(size, len(data) - at)
    return data[:at] + bytes(size) + data[at + size :]


def fill_a_chunk(data: bytes, rng: random.Random) -> bytes:
    at, size = _place(rng, len(data)), rng.choice((1, 4, 8, 64))
    size = min(size, len(data) - at)
    return data[:at] + rng.choice((b"\xff" * size, rng.randbytes(size))) + data[at + size :]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", b"\n", rng.randbytes(7), data, bytes(4096)))


def replace_all(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\0", rng.randbytes(len(data)), b"<!DOCTYPE html><html>404</html>", bytes(len(data))))


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    damage.__name__: damage
    for damage in (
        *(flip_bits, cut, lose_the_start, insert, remove, swap_chunks, repeat_a_chunk, zero_a_chunk, fill_a_chunk),
        *(append, replace_all),
    )
}


def _place(rng: random.Random, size: int) -> int:
    """A place below ``size``, often near the start or the end, where headers and directories are."""
    near = min(size, rng.choice((16, 128, 1024, size, size)))
    at = rng.randrange(max(1, near))
    return size - 1 - at if size and rng.random() < 0.3 else at
