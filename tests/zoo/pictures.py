"""Picture files as cameras, image editors and web tools write them: metadata whole, damaged and huge; TIFF kinds."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

ORIENTATION, ARTIST, DESCRIPTION, RESOLUTION, EXIF_FOLDER = 0x0112, 0x013B, 0x010E, 0x011A, 0x8769
TURNED = struct.pack("<HHII", ORIENTATION, 3, 1, 6)  # turn clockwise by a quarter to see it upright
BIG_TEXT = "workflow " * 200_000  # as node editors keep their graphs; above Pillow's limit of a text chunk

# Two halves side by side, as stored; turned upright, the red half is on top.
WIDE = Image.new("RGB", (32, 16), (255, 0, 0))
WIDE.paste((0, 0, 255), (16, 0, 32, 16))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(*entries: bytes, rest: bytes = b"") -> bytes:
    """A little-endian TIFF structure with these entries of 12 bytes, as an EXIF segment holds it."""
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0" + rest


def with_segment(jpeg: bytes, payload: bytes, *, marker: int = 0xE1) -> bytes:
    """A JPEG with one more application segment, right behind its first marker."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def exif_jpegs() -> dict[str, tuple[bytes, bool]]:
    """JPEGs of ``WIDE`` with damaged EXIF; and whether the orientation in it can still be read."""
    jpeg, head = encoded(WIDE, "JPEG", quality=95), b"Exif\0\0"
    far = 0xFFFFFF00  # behind the end of every file
    maker = struct.pack("<HHHII", 1, 0x927C, 7, 200, 0x7FFFFFFF) + b"\0\0\0\0"
    segments = {
        "whole": (head + exif(TURNED), True),
        "twice": (head + head + exif(TURNED), True),
        "empty": (head, False),
        "short": (head + b"II*\0", False),
        "garbage": (head + b"garbage!!garbage", False),
        "cut": (head + exif(TURNED)[:15], False),
        "bad offset": (head + exif(TURNED, struct.pack("<HHII", RESOLUTION, 5, 1, far)), True),
        "bad folder": (head + exif(TURNED, struct.pack("<HHII", EXIF_FOLDER, 4, 1, far)), True),
        "no text": (head + exif(TURNED, struct.pack("<HHII", DESCRIPTION, 2, 0, 0)), True),
        "by zero": (
            head + exif(TURNED, struct.pack("<HHII", RESOLUTION, 5, 1, 38), rest=struct.pack("<II", 1, 0)),
            True,
        ),
        "wrong type": (head + exif(TURNED, struct.pack("<HHII", ARTIST, 4, 1, 5)), True),
        "maker's note": (head + exif(TURNED, struct.pack("<HHII", EXIF_FOLDER, 4, 1, 38), rest=maker), True),
        "two numbers": (head + exif(struct.pack("<HHI", ORIENTATION, 3, 2) + struct.pack("<HH", 6, 6)), True),
        "text number": (head + exif(struct.pack("<HHI", ORIENTATION, 2, 2) + b"6\0\0\0"), False),
        "ninth": (head + exif(struct.pack("<HHII", ORIENTATION, 3, 1, 9)), False),
    }
    return {name: (with_segment(jpeg, payload), turned) for name, (payload, turned) in segments.items()}


def png_with(image: Image.Image, *chunks: tuple[bytes, bytes], damaged: bool = False, behind: bool = False) -> bytes:
    """A PNG with more chunks, before its pixels or behind them; ``damaged``: with wrong checksums."""
    data = encoded(image, "PNG")
    added = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ damaged)
        for kind, body in chunks
    )
    place = len(data) - 12 if behind else 33  # the last chunk, IEND, is 12 bytes; signature and IHDR are 33
    return data[:place] + added + data[place:]


def text_pngs(image: Image.Image) -> dict[str, bytes]:
    """PNGs with text and colour profiles that Pillow refuses to read, or that are damaged."""
    packed = zlib.compress(BIG_TEXT.encode())
    found = {}
    for kind in ("zTXt", "iTXt", "tEXt"):
        info = PngImagePlugin.PngInfo()
        if kind == "iTXt":
            info.add_itxt("workflow", BIG_TEXT, zip=True)
        else:
            info.add_text("workflow", BIG_TEXT, zip=kind == "zTXt")
        found[f"large {kind}"] = encoded(image, "PNG", pnginfo=info)
    found["large iCCP"] = encoded(image, "PNG", icc_profile=b"\0" * 2_000_000)
    found["many zTXt"] = png_with(image, *[(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 1_000_000))] * 70)
    found["zTXt behind"] = png_with(image, (b"zTXt", b"workflow\0\0" + packed), behind=True)
    found["damaged tEXt"] = png_with(image, (b"tEXt", b"k\0v"), damaged=True)
    found["no zlib"] = png_with(image, (b"zTXt", b"k\0\0no zlib"), (b"iCCP", b"k\0\0no zlib"))
    found["bad eXIf"] = png_with(image, (b"eXIf", b"garbage!!garbage"))
    found["bad gAMA"] = png_with(image, (b"gAMA", b"\0"), (b"pHYs", b"\0"), (b"cHRM", b"\0"))
    return found


def webp_with_exif(image: Image.Image, payload: bytes) -> bytes:
    return encoded(image, "WEBP", lossless=True, exif=payload)


def tiff(pixels: np.ndarray, *, white_is_zero: bool = False, more: tuple[bytes, ...] = (), order: str = "<") -> bytes:
    """An uncompressed TIFF of integer ``pixels``, (H, W) or (H, W, C), with ``more`` entries of 12 bytes."""
    height, width, *channels = pixels.shape
    samples, bits = (channels or [1])[0], pixels.dtype.itemsize * 8
    strip = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    table = struct.pack(f"{order}{samples}H", *[bits] * samples)  # where it does not fit into an entry
    photometric = (0 if white_is_zero else 1) if samples == 1 else 2
    longs = {256: width, 257: height, 273: 8, 278: height, 279: len(strip)}
    shorts = {258: bits, 259: 1, 262: photometric, 277: samples}
    entries = [(tag, struct.pack(f"{order}HHII", tag, 4, 1, value)) for tag, value in longs.items()]
    entries += [(tag, struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)) for tag, value in shorts.items()]
    if samples > 1:
        entries = [entry for entry in entries if entry[0] != 258]
        entries.append((258, struct.pack(f"{order}HHII", 258, 3, samples, 8 + len(strip))))
    entries += [(struct.unpack(f"{order}H", entry[:2])[0], entry) for entry in more]
    folder = struct.pack(f"{order}H", len(entries)) + b"".join(entry for _, entry in sorted(entries)) + bytes(4)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(strip) + len(table))
    return head + strip + table + folder
