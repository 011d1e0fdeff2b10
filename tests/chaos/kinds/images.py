"""Image files of every kind that is read, damaged, or with huge sizes and odd fields in their headers."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dmp_cli.data import center_crop, decode

from ..cases import Kind
from ..damage import DAMAGES
from ..sound import Write

_SIDES = (0, 1, 13_000, 13_377, 30_000, 65_535, 10**6, 2**31 - 1, 2**31, 2**32 - 1)


class Images(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 4), np.uint8)
        colour, clear = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
        wide = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        turned = Image.Exif()
        turned[0x0112] = 6
        frames = {"save_all": True, "append_images": [colour.rotate(90)]}
        self.files = {
            **{
                f"rgb.{kind}": _encode(colour, kind)
                for kind in ("png", "jpeg", "webp", "gif", "tiff", "bmp", "ppm", "avif")
            },
            **{"rgba.png": _encode(clear, "png"), "wide.png": _encode(wide, "png"), "wide.tiff": _encode(wide, "tiff")},
            **{"palette.png": _encode(colour.quantize(7), "png"), "grey.jpeg": _encode(colour.convert("L"), "jpeg")},
            **{
                "cmyk.jpeg": _encode(colour.convert("CMYK"), "jpeg"),
                "turned.jpeg": _encode(colour, "jpeg", exif=turned),
            },
            **{
                "progressive.jpeg": _encode(colour, "jpeg", progressive=True),
                "moving.gif": _encode(colour, "gif", **frames),
            },
            **{"packed.tiff": _encode(colour, "tiff", compression="tiff_lzw"), "clear.webp": _encode(clear, "webp")},
            **{
                "moving.webp": _encode(colour, "webp", **frames),
                "jpeg.tiff": _encode(colour, "tiff", compression="jpeg"),
            },
            **{"pages.tiff": _encode(colour, "tiff", **frames), "moving.png": _encode(colour, "png", **frames)},
        }
        self.ways: dict[str, Write] = {
            **{f"bytes: {name}": self._bytes(way) for name, way in DAMAGES.items()},
            **{
                way.__name__: self._made(way)
                for way in (_png_sizes, _png_bomb, _png_chunks, _gif_sizes, _jpeg_sizes, _tiff_fields)
            },
            **{way.__name__: self._made(way) for way in (_bmp_sizes, _ppm_sizes, _webp_sizes)},
        }

    def write(self, place: Path) -> None:
        (place / "rgb.png").write_bytes(self.files["rgb.png"])

    def _bytes(self, way: Callable[[bytes, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            name = rng.choice(list(self.files))
            (place / name).write_bytes(way(self.files[name], rng))

        return write

    def _made(self, way: Callable[[dict[str, bytes], random.Random], bytes]) -> Write:
        return lambda rng, place: (place / "x").write_bytes(way(self.files, rng))

    def open(self, place: Path, way: str) -> str | None:
        (path,) = place.iterdir()
        image = decode(path.read_bytes(), channels=3, name=path.name)
        crop = center_crop(image, image_size=8)
        return (
            None
            if image.mode == "RGB" and crop.size == (8, 8)
            else f"an image of mode {image.mode}, cropped to {crop.size}"
        )


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, *, depth: int = 8, colours: int = 2, data: bytes = b"", more: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + more + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _png_sizes(files: dict[str, bytes], rng: random.Random) -> bytes:
    width, height = rng.choice(_SIDES), rng.choice(_SIDES)
    depth, colours = rng.choice((1, 2, 4, 8, 16, 3, 255)), rng.choice((0, 2, 3, 4, 6, 7))
    return _png(width, height, depth=depth, colours=colours, data=zlib.compress(rng.randbytes(200)))


def _png_bomb(files: dict[str, bytes], rng: random.Random) -> bytes:
    """As many pixels as are read at most, all zero: a file of half a megabyte."""
    side = rng.choice((6_000, 13_000, 13_377))
    return _png(side, side, colours=rng.choice((0, 2, 6)), data=zlib.compress(bytes(side * (side + 1)), 1))


def _png_chunks(files: dict[str, bytes], rng: random.Random) -> bytes:
    """Chunks beside the pixels: texts and profiles that grow, and ones of no sense."""
    grown = zlib.compress(bytes(50_000_000), 1)
    chunks = (
        *(
            _chunk(b"zTXt", b"a\0\0" + grown),
            _chunk(b"iCCP", b"a\0\0" + grown),
            _chunk(b"iTXt", b"a\0\1\0\0\0" + grown),
        ),
        *(_chunk(b"tEXt", b"x" * 2_000_000), _chunk(b"eXIf", b"MM\0*\0\0\0\x08" + b"\xff" * 90), _chunk(b"tRNS", b"")),
        *(_chunk(b"PLTE", b"\0"), _chunk(b"acTL", b"\xff" * 8), _chunk(b"fcTL", bytes(26)), _chunk(b"\0\0\0\0", b"x")),
        *(
            _chunk(b"pHYs", b""),
            _chunk(b"gAMA", bytes(4)),
            _chunk(b"cHRM", bytes(3)),
            _chunk(b"tEXt", b"a\0b") * 50_000,
        ),
    )
    pixels = zlib.compress(bytes(8 * 25))
    return _png(8, 8, data=pixels, more=rng.choice(chunks))


def _gif_sizes(files: dict[str, bytes], rng: random.Random) -> bytes:
    data = bytearray(files["rgb.gif"])
    data[6:10] = struct.pack("<HH", rng.choice(_SIDES[:6]), rng.choice(_SIDES[:6]))
    at = data.find(b",", 13)
    data[at + 1 : at + 9] = struct.pack("<HHHH", *(rng.choice(_SIDES[:6]) for _ in range(4)))
    return bytes(data)


def _jpeg_sizes(files: dict[str, bytes], rng: random.Random) -> bytes:
    data = bytearray(files[rng.choice(("rgb.jpeg", "progressive.jpeg", "cmyk.jpeg"))])
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[at + 5 : at + 9] = struct.pack(">HH", rng.choice(_SIDES[:6]), rng.choice(_SIDES[:6]))
    if rng.random() < 0.3:
        data[at + 9] = rng.randrange(256)
    return bytes(data)


def _tiff_fields(files: dict[str, bytes], rng: random.Random) -> bytes:
    """A field of the directory with another type, count or value, or a directory that leads to itself."""
    data = bytearray(files[rng.choice(("rgb.tiff", "wide.tiff", "packed.tiff", "pages.tiff"))])
    (at,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[at : at + 2])
    entry = at + 2 + 12 * rng.randrange(count)
    field = rng.choice((("<H", 0), ("<H", 2), ("<I", 4), ("<I", 8)))
    size = struct.calcsize(field[0])
    value = rng.choice((*_SIDES, 2, 3, 7, 999)) % 2 ** (8 * size)
    data[entry + field[1] : entry + field[1] + size] = struct.pack(field[0], value)
    if rng.random() < 0.2:
        data[at + 2 + 12 * count : at + 6 + 12 * count] = struct.pack("<I", at)
    return bytes(data)


def _bmp_sizes(files: dict[str, bytes], rng: random.Random) -> bytes:
    data = bytearray(files["rgb.bmp"])
    data[18:26] = struct.pack("<II", rng.choice(_SIDES), rng.choice(_SIDES))
    data[28:30] = struct.pack("<H", rng.choice((1, 4, 8, 16, 24, 32, 99)))
    return bytes(data)


def _ppm_sizes(files: dict[str, bytes], rng: random.Random) -> bytes:
    head = rng.choice((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7", b"Pf"))
    sizes = b"%d %d" % (rng.choice(_SIDES), rng.choice(_SIDES))
    return (
        head
        + b"\n"
        + sizes
        + b"\n"
        + rng.choice((b"255", b"65535", b"0", b"9" * 99, b"-1"))
        + b"\n"
        + rng.randbytes(400)
    )


def _webp_sizes(files: dict[str, bytes], rng: random.Random) -> bytes:
    data = bytearray(files[rng.choice(("rgb.webp", "clear.webp", "moving.webp"))])
    at = rng.randrange(12, min(48, len(data) - 4))
    data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), rng.randbytes(4)))
    return bytes(data)
