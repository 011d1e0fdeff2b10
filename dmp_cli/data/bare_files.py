"""Image files without what is beside their pixels: texts, colour profiles, EXIF and the like, which may be damaged.

Every pixel stays as it is; what is left out is known by name, so that a damaged file never loses a part of its pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PNG, _JPEG, _TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", (b"II*\0", b"MM\0*")
_PNG_REST = frozenset(
    b"tEXt zTXt iTXt iCCP gAMA cHRM sRGB sBIT cICP mDCV cLLI pHYs tIME bKGD hIST sPLT dSIG caBX iDOT".split()
)
_WEBP_REST = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}  # kind of a chunk: its flag in the chunk VP8X
_PHOTOMETRIC, _ORIENTATION, _BITS = 262, 274, 258
# What says how the pixels of a TIFF lie and what they mean, from NewSubfileType to ReferenceBlackWhite.
_TIFF_PIXELS = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
    *(332, 334, 338, 339, 347, *range(512, 522), 529, 530, 531, 532),
}


def bare_files(data: bytes) -> Iterator[bytes]:
    """The file ``data``, without texts and profiles, then without EXIF too; only what differs from the one before."""
    last = data
    for keeps_exif in (True, False):
        bare = _without(data, keeps_exif=keeps_exif)
        if bare is not None and bare != last:
            yield bare
            last = bare


def as_black_is_zero(data: bytes) -> bytes | None:
    """A TIFF of 16 bits whose 0 is white, as one whose 0 is black: the negative. None: ``data`` is no such file."""
    if not data.startswith(_TIFF):
        return None
    try:
        entries = _tiff_entries(data)
    except struct.error:
        return None
    order = "<" if data[:1] == b"I" else ">"
    values = {tag: struct.unpack_from(f"{order}H", entry, 8)[0] for tag, (_, entry) in entries.items()}
    if values.get(_PHOTOMETRIC) != 0 or values.get(_BITS) != 16:
        return None
    place = entries[_PHOTOMETRIC][0] + 8
    return data[:place] + struct.pack(f"{order}H", 1) + data[place + 2 :]


def _without(data: bytes, *, keeps_exif: bool) -> bytes | None:
    """``data`` without its metadata; None for a file of another kind, or one that is cut short."""
    try:
        if data.startswith(_PNG):
            return _bare_png(data, keeps_exif=keeps_exif)
        if data.startswith(_JPEG):
            return _bare_jpeg(data, keeps_exif=keeps_exif)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _bare_webp(data, keeps_exif=keeps_exif)
        return _bare_tiff(data, keeps_exif=keeps_exif) if data.startswith(_TIFF) else None
    except (struct.error, IndexError):
        return None


def _bare_png(data: bytes, *, keeps_exif: bool) -> bytes:
    kept, place = [_PNG], len(_PNG)
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + length + 12
        if kind not in _PNG_REST and (kind != b"eXIf" or keeps_exif):
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _bare_jpeg(data: bytes, *, keeps_exif: bool) -> bytes:
    kept, place = [_JPEG], len(_JPEG)
    while data[place] == 0xFF and data[place + 1] != 0xDA:  # the scan, where the pixels begin
        if data[place + 1] == 0xFF:  # a byte to fill up
            place += 1
            continue
        marker, (length,) = data[place + 1], struct.unpack_from(">H", data, place + 2)
        end = place + 2 + length
        exif = marker == 0xE1 and data[place + 4 : place + 8] == b"Exif"
        # JFIF (APP0) and Adobe (APP14) say what the colours mean
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)) or (exif and keeps_exif):
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def _bare_webp(data: bytes, *, keeps_exif: bool) -> bytes:
    kept, flags, place = [], 0, 12
    while place < len(data):
        kind, (length,) = data[place : place + 4], struct.unpack_from("<I", data, place + 4)
        end = place + 8 + length + length % 2
        if kind in _WEBP_REST and not (kind == b"EXIF" and keeps_exif):
            flags |= _WEBP_REST[kind]
        else:
            kept.append(bytearray(data[place:end]))
        place = end
    if kept and kept[0][:4] == b"VP8X":
        kept[0][8] &= ~flags & 0xFF
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bare_tiff(data: bytes, *, keeps_exif: bool) -> bytes:
    """Leaves out entries of the first picture, and all pictures behind it."""
    wanted = _TIFF_PIXELS | ({_ORIENTATION} if keeps_exif else set())
    order = "<" if data[:1] == b"I" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    kept = [entry for tag, (_, entry) in _tiff_entries(data).items() if tag in wanted]
    folder = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:start] + folder + data[start + len(folder) :]


def _tiff_entries(data: bytes) -> dict[int, tuple[int, bytes]]:
    """Tag -> place and 12 bytes of each entry of the first picture."""
    order = "<" if data[:1] == b"I" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    places = range(start + 2, start + 2 + 12 * count, 12)
    return {struct.unpack_from(f"{order}H", data, place)[0]: (place, data[place : place + 12]) for place in places}
