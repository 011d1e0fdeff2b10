"""Decoding image files to 8-bit pictures, with errors that name the file, and cutting their centres."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..config import MAX_PIXELS, Sides, sides_of
from ..errors import DataError
from ..storage import physical_memory
from .bare_files import as_black_is_zero, bare_files
from .framing import Cut, place_of, resizing_of
from .kinds import read_formats
from .pillow import unhindered

_BYTES = 8  # of memory for a pixel while an image is decoded
_ROWS = 1 << 22  # pixels that are converted at once
CROP = "adm-center"  # the name of center_crop's method in records of files made from its results


_ORIENTATION = 0x0112  # the tag of EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = {5, 6, 7, 8}  # those that exchange height and width


def decode(
    data: bytes, *, channels: int, name: str, max_pixels: int = MAX_PIXELS, remarks: list[str] | None = None
) -> Image.Image:
    """Decode one image file to 8 bits, grey (``channels`` 1, mode L) or colour (3, mode RGB).

    EXIF rotation is applied where it can be read, transparency is laid over white, and the first frame of an animation
    is taken. 16-bit grey pixels v become round(v / 257); 32-bit integers are treated as 16-bit ones and must lie in
    0...65535; Pillow keeps the high byte of 16-bit colours. Float pixels are refused, because their range is unknown.
    What lies beside the pixels, such as texts and colour profiles, is not needed: it may be damaged, or huge.

    ``remarks`` gets a sentence for each of Pillow's warnings; None: they are not kept.

    Raises:
        DataError: anything is wrong with the file (cut short, not an image, too many pixels); it gives ``name``.
    """
    assert channels in (1, 3)
    with naming(name), unhindered() as heard:
        if not data:
            raise ValueError("the file is empty")
        image = _in_colours(_open(data, max_pixels))
        image = image if len(image.mode) == channels else image.convert("L" if channels == 1 else "RGB")
    if remarks is not None:
        remarks += [f"{name}: {text}" for text in dict.fromkeys(heard)]
    return image


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """The picture of a file, upright; without what lies beside the pixels, where the whole file cannot be read."""
    black = as_black_is_zero(data)
    if black is not None:
        image = _open(black, max_pixels)
        return Image.fromarray(65535 - np.asarray(image)) if image.mode.startswith("I") else image
    try:
        return _read(data, max_pixels)
    except Exception as error:
        failed = error
    for bare in bare_files(data):
        try:
            return _read(bare, max_pixels)
        except Exception as error:
            failed = error
    raise failed


def _read(data: bytes, max_pixels: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=read_formats())
    pixels, memory = image.width * image.height, physical_memory()
    if pixels > max_pixels:
        raise ValueError(f"it has {pixels:,} pixels, and --max-pixels is {max_pixels:,}")
    if pixels * _BYTES > memory // 2:
        raise ValueError(f"it has {pixels:,} pixels, and this machine has {memory / 1e6:,.0f} MB of memory")
    image.load()
    try:
        method = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # of any type: nobody asked for the rest of the EXIF
        method = None
    return image if method is None else image.transpose(method)


def _in_colours(image: Image.Image) -> Image.Image:
    """An image of any mode, converted to mode L or RGB."""
    if image.mode.startswith("I"):
        return _by_rows(image, "L", _narrow)
    if image.mode == "F":
        raise ValueError("float pixels have no agreed range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        return _by_rows(image, "RGB", _over_white)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _by_rows(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """``convert`` of the image to ``mode``, some rows at a time: in between, a pixel takes many bytes."""
    rows = max(1, _ROWS // image.width)
    if image.height <= rows:
        return convert(image)
    whole = Image.new(mode, image.size)
    for top in range(0, image.height, rows):
        whole.paste(convert(image.crop((0, top, image.width, min(top + rows, image.height)))), (0, top))
    return whole


def _over_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


# v8 = round(v16 / 257): 0 -> 0, 65535 -> 255; Pillow's own conversion clips everything above 255
def _narrow(image: Image.Image) -> Image.Image:
    wide = np.asarray(image).astype(np.int64)  # (H, W)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError("integer pixels outside 0...65535 have no agreed range; save it with 8 or 16 bits")
    narrow = ((wide + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")  # a grey PNG may declare one value as transparent
    if isinstance(transparent, int):
        narrow[wide == transparent] = 255
    return Image.fromarray(narrow)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Context that turns any error in reading a file into a DataError with the file's ``name``."""
    try:
        yield
    except (DataError, MemoryError):  # too little memory is not the fault of the file
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"cannot read {name}: not an image of a known format") from error
    except Exception as error:  # of any type: on damaged bytes Pillow's readers raise almost every kind
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise DataError(f"cannot read {name}: {reason}") from error


def center_crop(image: Image.Image, *, image_size: int | str, cut: Cut | None = None) -> Image.Image:
    """The centre of a picture, cut to ``image_size``: a square as in ADM and DiT (``center_crop_arr``).

    With ``cut`` it is another part of the picture, resized alike.

    The picture is halved with BOX while both sides are at least twice those of ``image_size``, then resized with
    BICUBIC until it just covers them. A picture of exactly that size is unchanged. An addition of ours: a strip longer
    than 64 times its width first loses its ends, to save memory.
    """
    target = sides_of(image_size)
    whole, halvings, resized = resizing_of(Sides(image.height, image.width), target)
    with unhindered():
        image = _part(image, whole)
    for _ in range(halvings):
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return _part(image.resize((resized.width, resized.height), Image.Resampling.BICUBIC), target, cut)


def _part(image: Image.Image, sides: Sides, cut: Cut | None = None) -> Image.Image:
    top, left = place_of(Sides(image.height, image.width), sides, cut)
    return image.crop((left, top, left + sides.width, top + sides.height))


def _lies(image: Image.Image) -> bool:
    """Whether height and width of an image change places when it is put upright, by its header alone."""
    try:
        return Image.Image.getexif(image).get(_ORIENTATION, 1) in _TURNED  # PNG's own would decode the pixels first
    except Exception:  # of any type, as in decode
        return False


def read_sides(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Sides:
    """Height and width of the upright picture in a file, by its header where that tells.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        with unhindered():
            opened = Image.open(io.BytesIO(data), formats=read_formats())
            return Sides(*opened.size) if _lies(opened) else Sides(opened.height, opened.width)
    except Exception:  # of any type; a picture may be read nevertheless
        image = decode(data, channels=3, name=name, max_pixels=max_pixels)
    return Sides(image.height, image.width)
