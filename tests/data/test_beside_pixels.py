"""What lies beside the pixels of a file decides nothing, nor does its size; Pillow's warnings are told by picture."""

from __future__ import annotations

import io
import struct
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmp_cli.data.bare_files import bare_files
from dmp_cli.data.batches import read_batches
from dmp_cli.data.decoding import center_crop, decode
from dmp_cli.data.folder import find_images
from dmp_cli.data.pillow import unhindered
from dmp_cli.data.readers import LiveReader
from dmp_cli.errors import DataError
from tests.zoo.pictures import (
    DESCRIPTION,
    EXIF_FOLDER,
    RESOLUTION,
    TURNED,
    WIDE,
    encoded,
    exif,
    exif_jpegs,
    text_pngs,
    tiff,
    webp_with_exif,
    with_segment,
)

from .image_files import noise

FAR = 0xFFFFFF00  # behind the end of every file
RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)


def pixels(data: bytes, *, channels: int = 3) -> np.ndarray:
    return np.asarray(decode(data, channels=channels, name="x"))


@pytest.mark.parametrize("name", exif_jpegs())
def test_damaged_exif(name: str) -> None:
    data, turned = exif_jpegs()[name]
    plain = np.asarray(Image.open(io.BytesIO(encoded(WIDE, "JPEG", quality=95))).convert("RGB"))  # (16, 32, 3)
    assert np.array_equal(pixels(data), np.rot90(plain, -1) if turned else plain)  # by a quarter, clockwise


@pytest.mark.parametrize("name", text_pngs(WIDE))
def test_texts_and_profiles_of_a_png(name: str) -> None:
    assert np.array_equal(pixels(text_pngs(WIDE)[name]), np.asarray(WIDE))


def test_a_turned_picture_with_a_huge_text_is_turned() -> None:
    png = encoded(WIDE, "PNG", icc_profile=b"\0" * 2_000_000, exif=b"Exif\0\0" + exif(TURNED))
    assert np.array_equal(pixels(png), np.rot90(np.asarray(WIDE), -1))


def test_segments_of_a_jpeg_and_chunks_of_a_webp() -> None:
    grey = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for plain in (encoded(WIDE, "JPEG"), encoded(grey, "JPEG")):  # of the second, Adobe's segment gives the colours
        for marker, payload in (
            (0xE2, b"MPF\0garbage"),
            (0xE2, b"ICC_PROFILE\0\1\1x"),
            (0xED, b"Photoshop 3.0\x008BIM"),
        ):
            changed = with_segment(plain, payload, marker=marker)
            assert np.array_equal(pixels(changed), pixels(plain))
            assert list(bare_files(changed)) == [plain]
    for payload in (b"garbagegarbage", b"Exif\0\0" + exif(TURNED)[:15]):
        data = webp_with_exif(WIDE, payload)
        assert np.array_equal(pixels(data), np.asarray(WIDE))
        *_, bare = bare_files(data)
        assert b"EXIF" not in bare
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(bare)).convert("RGB")), np.asarray(WIDE))


@pytest.mark.parametrize("order", ["<", ">"])
def test_entries_of_a_tiff(order: str) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    bad = {RESOLUTION: (5, 1, FAR), DESCRIPTION: (2, 400, FAR), 34675: (7, 999_999, 8), EXIF_FOLDER: (4, 1, FAR)}
    for tag, (kind, count, value) in bad.items():
        entry = struct.pack(f"{order}HHII", tag, kind, count, value)
        assert np.array_equal(pixels(tiff(rows, more=(entry,), order=order)), rows), tag
    turned = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, 6, 0)
    description = struct.pack(f"{order}HHII", DESCRIPTION, 2, 400, FAR)
    found = pixels(tiff(rows, more=(turned, description), order=order))
    assert np.array_equal(found, np.rot90(rows, -1))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_is_no_negative(bits: int, order: str) -> None:
    ramp = RAMP if bits == 16 else (RAMP >> 8).astype(np.uint8)
    levels = np.round(RAMP / 257) if bits == 16 else ramp  # of 8 bits
    assert np.array_equal(pixels(tiff(ramp, order=order), channels=1), levels)
    assert np.array_equal(pixels(tiff(ramp, white_is_zero=True, order=order), channels=1), 255 - levels)


def test_damaged_pixels_stay_refused_whatever_lies_beside_them() -> None:
    whole = text_pngs(noise())["large zTXt"]
    for broken in (whole[:-200], whole.replace(b"IDAT", b"IDAS")):
        with pytest.raises(DataError, match="cannot read x"):
            pixels(broken)
    flipped = bytearray(whole)
    flipped[flipped.rindex(b"IDAT") + 30] ^= 1
    with pytest.raises(DataError, match="cannot read x"):
        pixels(bytes(flipped))


def test_the_limit_of_pixels_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow refuses 120 > 2 * 50, and warns of 60 > 50
    data = encoded(noise(), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(data, channels=3, name="x.png")
        assert np.array_equal(np.asarray(image), np.asarray(noise()))
        assert center_crop(Image.new("L", (650, 10)), image_size=4).size == (
            4,
            4,
        )  # by a crop of 6400 pixels
        decode(data, channels=3, name="x.png", max_pixels=120)
    with pytest.raises(DataError, match=r"cannot read x.png: it has 120 pixels, and --max-pixels is 119$"):
        decode(data, channels=3, name="x.png", max_pixels=119)
    assert Image.MAX_IMAGE_PIXELS == 50
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_warnings_are_told_by_picture() -> None:
    data = tiff(np.zeros((4, 4, 3), np.uint8), more=(struct.pack("<HHII", RESOLUTION, 5, 1, FAR),))
    for name in ("one.tif", "two.tif"):  # Python alone would show equal warnings once
        remarks: list[str] = []
        with warnings.catch_warnings(record=True) as elsewhere:
            decode(data, channels=3, name=name, remarks=remarks)
        assert remarks == [f"{name}: Truncated File Read"]
        assert elsewhere == []
    before = warnings.showwarning, list(warnings.filters)
    decode(data, channels=3, name="x")
    assert (warnings.showwarning, list(warnings.filters)) == before


def test_another_thread_keeps_its_warnings() -> None:
    other = threading.Thread(target=lambda: warnings.warn("of another thread", stacklevel=1))

    def work() -> list[str]:
        with unhindered() as heard:
            other.start()
            other.join()
        return heard

    with pytest.warns(UserWarning, match="of another thread"):
        assert work() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_training_tells_each_remark_once(tmp_path: Path, workers: int) -> None:
    for number in range(3):
        more = (struct.pack("<HHII", RESOLUTION, 5, 1, FAR),) if number == 1 else ()
        (tmp_path / f"{number}.tif").write_bytes(tiff(np.zeros((8, 8, 3), np.uint8), more=more))
    source = find_images(tmp_path)
    reader = LiveReader(source, image_size=8, channels=3, keeps=False)
    how: dict[str, Any] = {"batch_size": 3, "seed": 0, "start_step": 0, "stop_step": 4, "flip": False, "max_bad": 0}
    found = [remark for batch in read_batches(source, reader, workers=workers, **how) for remark in batch.remarks]
    assert found == [f"{tmp_path}/1.tif: Truncated File Read"]
