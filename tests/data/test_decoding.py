"""dmp_cli.data.decoding: the pixels of odd files, the refusal of unreadable ones, and the central crop."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from dmp_cli.data.decoding import center_crop, decode
from dmp_cli.errors import DataError

from .image_files import SIZE, encoded, noise, picture

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SIXTEEN_BITS = np.array([[0, 255, 256, 300, 32768, 65535]], np.uint16)
IN_8_BITS = [[0, 1, 1, 1, 128, 255]]  # v / 257 = 0, 0.99, 0.996, 1.17, 127.502, 255


def pixels(data: bytes, *, channels: int = 3) -> list:
    return np.asarray(decode(data, channels=channels, name="x.png")).tolist()


@pytest.mark.filterwarnings("ignore:(Corrupt EXIF|Truncated File)")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_a_file_cut_anywhere_is_refused_or_complete(kind):
    data = encoded(noise(), kind)
    whole = pixels(data)
    complete = 0
    for length in range(len(data)):
        with contextlib.suppress(DataError):
            assert pixels(data[:length]) == whole  # only the end marker or padding is missing
            complete += 1
    assert complete <= 20  # bytes: of a PNG the two checksums of its data, 4 each, and the end chunk of 12


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"just some text", "not an image of a known format"),
        (encoded(noise(), "JPEG")[:30], "Truncated File Read"),
        (encoded(noise(), "JPEG")[:-40], "image file is truncated"),
        (b"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n", "not an image of a known format"),
        (encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "float pixels have no agreed range"),
        (encoded(Image.fromarray(np.full((2, 2), 65536, np.int32)), "TIFF"), "outside 0...65535"),
    ],
)
def test_unreadable_files_are_refused_with_their_reason(data, reason):
    with pytest.raises(DataError) as caught:
        decode(data, channels=3, name="bad.png")
    assert str(caught.value).startswith("cannot read bad.png: ")
    assert reason in str(caught.value)
    assert "0x" not in str(caught.value)  # no addresses: the same message in every process


def test_a_flipped_bit_is_refused():
    data = bytearray(encoded(noise(), "PNG"))
    data[data.index(b"IDAT") + 200] ^= 1
    with pytest.raises(DataError, match="cannot read"):
        pixels(bytes(data))


@pytest.mark.parametrize(("mode", "kind"), [("<u2", "PNG"), (">u2", "TIFF"), ("<u2", "PPM"), ("<i4", "TIFF")])
def test_sixteen_bits_scale(mode, kind):
    names = {"<u2": "I;16", ">u2": "I;16B", "<i4": "I"}
    image = Image.frombytes(names[mode], (6, 1), SIXTEEN_BITS.astype(mode).tobytes())
    assert Image.open(io.BytesIO(encoded(image, kind))).mode in ("I", names[mode])
    assert pixels(encoded(image, kind), channels=1) == IN_8_BITS
    assert pixels(encoded(image, kind)) == [[[v, v, v] for v in IN_8_BITS[0]]]


def test_transparency_is_laid_over_white():
    rgba = np.array([[[200, 0, 10, 128], [7, 8, 9, 0], [7, 8, 9, 255]]], np.uint8)
    # (c * 128 + 255 * 127) / 255: 200 -> 227.4, 0 -> 127, 10 -> 132.02
    assert pixels(encoded(Image.fromarray(rgba), "PNG")) == [[[227, 127, 132], [255, 255, 255], [7, 8, 9]]]
    grey = Image.fromarray(np.array([[[200, 128], [7, 0]]], np.uint8), "LA")
    assert pixels(encoded(grey, "PNG"), channels=1) == [[227, 255]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putpixel((1, 0), 1)
    assert pixels(encoded(palette, "PNG", transparency=0)) == [[[255, 255, 255], [0, 0, 255]]]
    assert pixels(encoded(palette, "PNG", transparency=bytes([255, 51]))) == [[[255, 0, 0], [204, 204, 255]]]
    wide = encoded(Image.fromarray(SIXTEEN_BITS), "PNG", transparency=300)
    assert pixels(wide, channels=1) == [[0, 1, 1, 255, 128, 255]]


def test_other_colour_modes():
    bits = Image.fromarray(np.array([[True, False]]))
    assert pixels(encoded(bits, "PNG"), channels=1) == [[255, 0]]
    assert pixels(encoded(bits, "PNG")) == [[[255, 255, 255], [0, 0, 0]]]
    assert pixels(encoded(Image.new("RGB", (1, 1), (10, 200, 30)), "PNG"), channels=1) == [[124]]  # .299 .587 .114
    cyan = np.array(pixels(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100)))
    assert np.abs(cyan - [0, 255, 255]).max() <= 2
    assert pixels(encoded(noise(), "WEBP", lossless=True)) == np.asarray(noise()).tolist()


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, GREEN, BLUE)]
    for kind in ("GIF", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert pixels(data) == [[list(RED)] * 2] * 2


def test_exif_rotation_is_applied():
    wide = Image.new("RGB", (32, 16), RED)
    wide.paste(BLUE, (16, 0, 32, 16))  # left half red, right half blue
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter to see it upright
    upright = np.array(pixels(encoded(wide, "JPEG", exif=exif, quality=95)))  # (32, 16, 3)
    assert np.abs(upright[:12] - RED).max() < 30
    assert np.abs(upright[20:] - BLUE).max() < 30


def _adm(image: Image.Image, size: int) -> np.ndarray:
    """The formula of guided-diffusion and DiT, whole resize first, then the crop."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    top, left = (image.height - size) // 2, (image.width - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def test_center_crop_equals_resize_then_crop():
    draw = np.random.default_rng(0)
    for seed in range(150):
        width, height, size = (int(x) for x in draw.integers(2, 70, 3))
        image = Image.fromarray(picture(seed, width=width, height=height))
        cropped = np.asarray(center_crop(image, image_size=size))
        assert np.array_equal(cropped, _adm(image, size)), (width, height, size)


def test_center_crop_to_two_sides_by_hand():
    tall = picture(1)  # 4 x 4 to 4 wide, 2 high: the middle rows
    assert np.array_equal(center_crop(Image.fromarray(tall), image_size=f"{SIZE}x{SIZE // 2}"), tall[1:3])
    blocks = Image.fromarray(np.repeat(np.arange(8, dtype=np.uint8)[:, None] * 10, 6, axis=1))  # 6 wide, 8 high
    assert np.asarray(center_crop(blocks, image_size="3x2")).tolist() == [[25] * 3, [45] * 3]  # halved to 3 x 4
    for size in ((40, 30), (31, 77), (5, 400)):
        found = center_crop(Image.new("RGB", size, (7, 8, 9)), image_size="24x16")
        assert found.size == (24, 16)
        assert np.asarray(found).reshape(-1, 3).tolist() == [[7, 8, 9]] * 384


def test_center_crop_by_hand():
    exact = Image.fromarray(picture(1))
    assert np.array_equal(center_crop(exact, image_size=SIZE), picture(1))
    wide = Image.fromarray(picture(2, width=7))  # only cropped: columns 1 to 4
    assert np.array_equal(center_crop(wide, image_size=SIZE), picture(2, width=7)[:, 1:5])
    blocks = Image.fromarray(np.array([[0, 8, 1, 1], [8, 0, 1, 1], [9, 9, 0, 0], [9, 9, 0, 100]], np.uint8))
    assert np.asarray(center_crop(blocks, image_size=2)).tolist() == [[4, 1], [9, 25]]  # means of 2 x 2
    assert set(np.asarray(center_crop(Image.new("L", (1, 1), 77), image_size=5)).ravel()) == {77}
    strip = np.zeros((500_000, 1), np.uint8)  # made whole, it would have 128 million rows
    strip[249_998:250_002] = 77
    assert set(np.asarray(center_crop(Image.fromarray(strip), image_size=256)).ravel()) == {77}
