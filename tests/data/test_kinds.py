"""Which kinds of images are read, and how those that are not are counted and named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli.data import kinds
from dmp_cli.data.decoding import decode
from dmp_cli.data.folder import find_images
from dmp_cli.data.kinds import describe_kinds, hint_for_kinds
from dmp_cli.errors import DataError
from tests.zoo.captioned import zip_of
from tests.zoo.pictures import WIDE, encoded

from .image_files import noise
from .test_folder import fill

needs_avif = pytest.mark.skipif(not kinds.reads_avif(), reason="this Pillow reads no AVIF")


@needs_avif
def test_avif_is_read(tmp_path: Path) -> None:
    exact = encoded(noise(), "AVIF", quality=100, subsampling="4:4:4")
    expected = np.asarray(Image.open(io.BytesIO(exact)).convert("RGB"))
    assert np.array_equal(np.asarray(decode(exact, channels=3, name="x.avif")), expected)
    assert np.abs(expected.astype(int) - np.asarray(noise())).max() < 12
    turned = Image.Exif()
    turned[0x0112] = 6
    assert decode(encoded(WIDE, "AVIF", exif=turned), channels=3, name="x.avif").size == (16, 32)
    (fill(tmp_path, "a.png") / "b.AVIF").write_bytes(exact)
    assert len(find_images(tmp_path)) == 2
    before = find_images(tmp_path, rules=1)  # runs that were begun without it go on without it
    assert (len(before), before.passed_over) == (1, {".avif": 1})


def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(WIDE.resize((64, 64))).save(buffer, format="HEIF", quality=100)
    found = np.asarray(decode(buffer.getvalue(), channels=3, name="x.heic")).astype(int)
    assert np.abs(found[:, :24] - (255, 0, 0)).max() < 10
    assert np.abs(found[:, 40:] - (0, 0, 255)).max() < 10
    (fill(tmp_path, "a.png") / "b.HEIC").write_bytes(buffer.getvalue())
    assert len(find_images(tmp_path)) == 2


def test_other_suffixes_of_png_and_jpeg(tmp_path: Path) -> None:
    frames = {"save_all": True, "append_images": [WIDE.transpose(Image.Transpose.ROTATE_180)]}
    (tmp_path / "a.jpe").write_bytes(encoded(WIDE, "JPEG"))
    (tmp_path / "b.mpo").write_bytes(encoded(WIDE, "MPO", **frames))
    (tmp_path / "c.apng").write_bytes(encoded(WIDE, "PNG", **frames))
    source = find_images(tmp_path)
    assert len(source) == 3
    for index in range(3):  # the first picture of each
        image = np.asarray(decode(source.read(index), channels=3, name="x")).astype(int)
        assert np.abs(image - np.asarray(WIDE))[:, (0, -1)].max() < 20  # JPEG smears the edge in the middle


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_kinds_that_are_not_read_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(kinds, "reads_heif", lambda: False)
    names = [f"{number}.jxl" for number in range(7)] + ["a.PSD", "b.psd", "sub/c.heic", ".hidden.jxl", "notes.pdf"]
    path = fill(tmp_path / "data", "1.png", "2.jpg", *names)
    path = zip_of(path, tmp_path / "data.zip") if kind == "zip" else path
    source = find_images(path)
    assert len(source) == 2
    assert source.passed_over == {".jxl": 7, ".psd": 2, ".heic": 1}
    assert describe_kinds(source.passed_over) == "10 files passed over: 7 .jxl, 2 .psd, 1 .heic"
    assert hint_for_kinds(source.passed_over).startswith("pip install 'dmp-cli[heic]' reads HEIC")
    assert hint_for_kinds({".jxl": 1}) == "Convert them to PNG or JPEG, or remove them."
    assert describe_kinds({".jxl": 1}) == "1 file passed over: 1 .jxl"


def test_nothing_but_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in .*; 2 files passed over: 2 .jxl"):
        find_images(fill(tmp_path, "1.jxl", "2.jxl"))
