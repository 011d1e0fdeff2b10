"""Zips and tars forged by hand: members that lie about their size, links, pipes, odd names, and archives that grow."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from .array_files import deflated, zip_by_hand, zipped

Members = dict[str, bytes]
NAMES = (
    "../../x.png",
    "/etc/x.png",
    "a/../b.png",
    "a\0b.png",
    "\u202e.png",
    "x" * 300 + ".png",
    "C:\\x.png",
    "a\\b.png",
    " .png",
)
NAMES += (
    ".png",
    "a//b.png",
    "./a.png",
    "A.PNG",
    "é.png",
    "a\nb.png",
    "-n.png",
    "x.png/",
    "con.png",
    "~/x.png",
    "a/b/c/d.png",
)


def tarred(
    members: Members, *, changes: dict[str, dict[str, Any]] | None = None, kind: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar of ``members``; ``changes``: fields of a member's header other than its bytes ask for."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in (changes or {}).get(name, {}).items():
                setattr(info, field, value)
            archive.fileobj.write(info.tobuf(kind, "utf-8", "surrogateescape"))
            archive.offset += 512
            archive.fileobj.write(data + bytes(-len(data) % 512))
    return buffer.getvalue()


def _pick(members: Members, rng: random.Random) -> str:
    return rng.choice(list(members))


def lying_size(members: Members, rng: random.Random) -> bytes:
    size = rng.choice((0, 1, 511, 10**6, 2**33 - 1, 2**40, 2**62, -1))
    kind = tarfile.GNU_FORMAT if not 0 <= size < 2**33 else rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    return tarred(members, changes={_pick(members, rng): {"size": size}}, kind=kind)


def other_type(members: Members, rng: random.Random) -> bytes:
    """A member that is a link, a device, a pipe, a folder, or of no known type."""
    name = _pick(members, rng)
    target = rng.choice((name, "/etc/passwd", "../x", "/dev/zero", _pick(members, rng)))
    return tarred(
        members,
        changes={
            name: {
                "type": rng.choice((b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"V", b"Z", b"\0")),
                "linkname": target,
            }
        },
    )


def odd_tar_name(members: Members, rng: random.Random) -> bytes:
    old, new = _pick(members, rng), rng.choice((*NAMES, _pick(members, rng), ""))
    return tarred({(new if name == old else name): data for name, data in members.items()}, kind=tarfile.GNU_FORMAT)


def pax_records(members: Members, rng: random.Random) -> bytes:
    """Extended headers that say another size, path or sparse map for a member."""
    name = _pick(members, rng)
    records = rng.choice(
        (
            *({"size": "9" * 30}, {"size": "-1"}, {"size": "x"}, {"path": "../x.png"}, {"path": "x" * 10_000 + ".png"}),
            *(
                {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
                {"GNU.sparse.size": "9" * 15, "GNU.sparse.map": "0,1"},
            ),
            *(
                {"GNU.sparse.map": "x", "GNU.sparse.size": "1"},
                {"mtime": "nan"},
                {"mtime": "1e999"},
                {"hdrcharset": "x"},
            ),
            *({"GNU.sparse.size": "10000000000", "GNU.sparse.map": "0,10000000000"}, {"uid": "9" * 5000}),
        )
    )
    return tarred(members, changes={name: {"pax_headers": records}})


def raw_pax(members: Members, rng: random.Random) -> bytes:
    """An extended header whose records lie about their own length, or one without end."""
    text = rng.choice(
        (b"99999 path=x\n", b"0 path=x\n", b"-5 a=b\n", b"x", b"12 size=abc\n" * 1000, b"11 path=\xff\n\n", b"5 a\n")
    )
    info = tarfile.TarInfo("pax")
    info.type, info.size = rng.choice((b"x", b"g", b"L", b"K")), rng.choice((len(text), len(text), 2**33 - 1))
    head = info.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)
    return head * rng.choice((1, 1, 3, 1500)) + tarred(members)


def many_tar_members(members: Members, rng: random.Random) -> bytes:
    return tarred(members)[: -10240 if rng.random() < 0.5 else None] + tarred(
        {f"{i:06d}.png": b"" for i in range(rng.choice((100, 3_000)))}
    )


def packed_tar(members: Members, rng: random.Random) -> bytes:
    """A tar inside gzip, bzip2 or xz, whole or cut."""
    import bz2
    import gzip
    import lzma

    data = rng.choice((gzip.compress, bz2.compress, lzma.compress))(tarred(members))
    return data if rng.random() < 0.5 else data[: rng.randrange(len(data))]


def empty_tar(members: Members, rng: random.Random) -> bytes:
    return rng.choice((b"", bytes(512), bytes(1024), bytes(10240), tarred({}), tarred(dict(list(members.items())[:1]))))


def twice(members: Members, rng: random.Random) -> bytes:
    name = _pick(members, rng)
    return tarred(members)[:-10240] + tarred({name: rng.choice((b"", members[name][:40], rng.randbytes(99)))})


TAR_WAYS: dict[str, Callable[[Members, random.Random], bytes]] = {
    way.__name__: way
    for way in (
        *(lying_size, other_type, odd_tar_name, pax_records, raw_pax, many_tar_members, packed_tar, empty_tar, twice),
    )
}


def zip_bomb(members: Members, rng: random.Random) -> bytes:
    """A member that is a megabyte in the file and more than a gigabyte when it is read."""
    name, size = _pick(members, rng), 1_200_000_000
    packed, crc = deflated(b"\x89PNG\r\n\x1a\n", size)
    said = rng.choice((size, size, 1000))
    plain = [(key, data, len(data), zlib.crc32(data), 0) for key, data in members.items() if key != name]
    return zip_by_hand([*plain, (name, packed, said, crc, 8)])


def lying_zip_size(members: Members, rng: random.Random) -> bytes:
    name = _pick(members, rng)
    data, crc = members[name], zlib.crc32(members[name])
    said, crc = rng.choice(((0, crc), (2**31, crc), (2**62, crc), (1, crc), (len(data), 0), (2**32 - 1, crc)))
    plain = [(key, value, len(value), zlib.crc32(value), 0) for key, value in members.items() if key != name]
    return zip_by_hand([*plain, (name, data, said, crc, rng.choice((0, 8, 12, 14, 9, 99)))])


def odd_zip_name(members: Members, rng: random.Random) -> bytes:
    old, new = _pick(members, rng), rng.choice((*NAMES, _pick(members, rng), ""))
    return zip_by_hand(
        [(new if name == old else name, data, len(data), zlib.crc32(data), 0) for name, data in members.items()]
    )


def many_zip_members(members: Members, rng: random.Random) -> bytes:
    return zipped({**members, **{f"n{i}.png": b"" for i in range(rng.choice((100, 3_000)))}})


def overlapping(members: Members, rng: random.Random) -> bytes:
    """A directory in which all members lead to the same bytes."""
    data = bytearray(zipped(members))
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
        data[at + 42 : at + 46] = rng.choice((bytes(4), b"\xff\xff\xff\x7f", b"\x01\0\0\0"))
    return bytes(data)


def other_zip_type(members: Members, rng: random.Random) -> bytes:
    """A member that says it is a link, a folder or a device."""
    buffer, name = io.BytesIO(), _pick(members, rng)
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, data in members.items():
            info = zipfile.ZipInfo(key)
            if key == name:
                info.external_attr = rng.choice((0o120777, 0o040755, 0o010644, 0o020644)) << 16
            archive.writestr(info, b"/etc/passwd" if key == name else data)
    return buffer.getvalue()


def zip_inside(members: Members, rng: random.Random) -> bytes:
    return zipped({"inner.zip": zipped(members), **(members if rng.random() < 0.5 else {})})


def comment(members: Members, rng: random.Random) -> bytes:
    """Bytes before or behind the archive, as in self-extracting ones, or a comment that lies about its length."""
    data = bytearray(zipped(members))
    if rng.random() < 0.5:
        data[-2:] = b"\xff\xff"
    return rng.choice((bytes(data), rng.randbytes(5000) + bytes(data), bytes(data) + rng.randbytes(70_000)))


ZIP_WAYS: dict[str, Callable[[Members, random.Random], bytes]] = {
    way.__name__: way
    for way in (
        *(zip_bomb, lying_zip_size, odd_zip_name, many_zip_members, overlapping, other_zip_type, zip_inside, comment),
    )
}
