"""dmp_cli.data.folder: which files are found, in which order and class, and what odd files decode to."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli.data.decoding import decode
from dmp_cli.data.folder import find_images
from dmp_cli.errors import DataError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SIXTEEN_BITS = np.array([[0, 255, 256, 300, 32768, 65535]], np.uint16)
IN_8_BITS = [[0, 1, 1, 1, 128, 255]]  # v / 257 = 0, 0.99, 0.996, 1.17, 127.502, 255


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8))


def pixels(data: bytes, *, channels: int = 3) -> list:
    return np.asarray(decode(data, channels=channels, name="x.png")).tolist()


def fill(folder: Path, *names: str) -> Path:
    """A folder with an image of its own under each name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(noise(seed=number), "PNG"))
    return folder


def zipped(folder: Path, archive: Path, *, under: str = "") -> Path:
    """A zip of a folder, entries in reverse order and folders listed too, as some zip tools do."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*"), reverse=True):
            file.write(path, under + path.relative_to(folder).as_posix())
    return archive


def test_class_folders_sort_by_name_and_number_the_classes(tmp_path):
    # "/" sorts after "-" as a letter: sorting whole paths would put cat-2 before cat.
    source = find_images(fill(tmp_path, "dog/b.png", "dog/a.jpg", "cat/2.png", "cat-2/1.png", "cat/10.PNG"))
    assert source.classes == ["cat", "cat-2", "dog"]
    names = [os.path.relpath(source.name(i), tmp_path) for i in range(len(source))]
    assert names == ["cat/10.PNG", "cat/2.png", "cat-2/1.png", "dog/a.jpg", "dog/b.png"]
    assert source.labels.tolist() == [0, 0, 1, 2, 2]
    assert source.labels.dtype == np.int64
    assert source.read(2) == (tmp_path / "cat-2/1.png").read_bytes()


def test_flat_folder_has_no_classes_and_label_zero(tmp_path):
    (tmp_path / "captions").mkdir()  # holds no images, so it is no class
    source = find_images(fill(tmp_path, "b.png", "a.webp"))
    assert (source.classes, source.labels.tolist(), len(source)) == ([], [0, 0], 2)


@pytest.mark.parametrize(
    "extra", [".c.png", "c.png.partial", "c.txt", "__MACOSX/a.png", ".git/a.png", "x.partial/a.png"]
)
def test_what_is_no_image_is_passed_over(tmp_path, extra):
    fill(tmp_path / "data", "a.png", "b.png", extra)
    archive = zipped(tmp_path / "data", tmp_path / "data.zip")
    assert len(find_images(tmp_path / "data")) == len(find_images(archive)) == 2


CLASSES = ("cat/1.png", "dog/1.png", "cat-2/é.png")


# top/: a lone folder around the class folders is looked through
@pytest.mark.parametrize(("names", "under"), [(("a.png", "b.png"), ""), (CLASSES, ""), (CLASSES, "top/")])
def test_zip_equals_folder(tmp_path, names, under):
    folder = find_images(fill(tmp_path / "data", *names))
    archive = find_images(zipped(tmp_path / "data", tmp_path / "data.zip", under=under))
    assert archive.fingerprint == folder.fingerprint
    assert archive.classes == folder.classes
    assert archive.labels.tolist() == folder.labels.tolist()
    assert [archive.read(i) for i in range(len(names))] == [folder.read(i) for i in range(len(names))]
    assert archive.name(0) == f"{tmp_path}/data.zip/{under}{names[0]}"
    assert pickle.loads(pickle.dumps(archive)).read(0) == folder.read(0)  # an open zip must not travel to workers


def test_fingerprint_follows_names_and_sizes_only(tmp_path):
    first = find_images(fill(tmp_path / "1", "a.png")).fingerprint
    assert find_images(fill(tmp_path / "2", "b.png")).fingerprint != first
    size = (tmp_path / "1/a.png").stat().st_size
    (tmp_path / "1/a.png").write_bytes(b"x" * size)
    assert find_images(tmp_path / "1").fingerprint == first
    (tmp_path / "1/a.png").write_bytes(b"x" * (size + 1))
    assert find_images(tmp_path / "1").fingerprint != first


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "cat/b.png"], r"both directly \(a.png\) and in sub-folders \(cat/b.png\)"),
        (["train/1.png", "test/2.png"], "holds test and train, not classes"),
        (["train/cat/1.png", "val/cat/2.png"], "holds train and val, not classes"),
        (["top/Train/cat/1.png", "top/Test/cat/2.png"], "top holds Test and Train, not classes"),
        (["a/cat/1.png", "b/cat/2.png"], "too deep in .*: [ab]/cat/"),
        (["cat/1.png", "dog/notes.txt"], "class folder .*/dog holds no images"),
        (["notes.txt", "cat/notes.txt"], "no images in"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_unclear_layouts_are_refused(tmp_path, names, message, kind):
    path = fill(tmp_path / "data", *names)
    path = zipped(path, tmp_path / "data.zip") if kind == "zip" else path
    with pytest.raises(DataError, match=message) as caught:
        find_images(path)
    assert caught.value.hint


def test_of_splits_one_can_be_given(tmp_path):
    with pytest.raises(DataError) as caught:
        find_images(fill(tmp_path, "train/cat/1.png", "test/cat/2.png"))
    assert caught.value.hint == f"Give one of them alone, as {tmp_path}/train."
    assert find_images(tmp_path / "train").classes == ["cat"]


def test_missing_empty_and_damaged_paths(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no images in"):
        find_images(tmp_path)
    archive = zipped(fill(tmp_path / "data", "a.png"), tmp_path / "data.zip")
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"data.zip is neither a folder nor a readable zip"):
        find_images(archive)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    source = find_images(zipped(fill(tmp_path / "data", "a.png", "b.png"), tmp_path / "data.zip"))
    damaged = bytearray((tmp_path / "data.zip").read_bytes())
    damaged[damaged.index(b"IDAT") + 20] ^= 1  # in b.png, the first entry
    (tmp_path / "data.zip").write_bytes(damaged)
    with pytest.raises(DataError, match=r"cannot read .*/data.zip/b.png: Bad CRC-32"):
        source.read(1)
    assert source.read(0) == (tmp_path / "data/a.png").read_bytes()
    (tmp_path / "data/dead.png").symlink_to(tmp_path / "gone.png")
    links = find_images(tmp_path / "data")
    with pytest.raises(DataError, match=r"cannot read .*/data/dead.png: No such file"):
        links.read(2)


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


def test_a_flipped_bit_and_too_many_pixels_are_refused(monkeypatch):
    data = bytearray(encoded(noise(), "PNG"))
    data[data.index(b"IDAT") + 200] ^= 1
    with pytest.raises(DataError, match="cannot read"):
        pixels(bytes(data))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # 120 > 2 * 50
    with pytest.raises(DataError, match=r"cannot read x.png: Image size \(120 pixels\) exceeds limit"):
        pixels(encoded(noise(), "PNG"))


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


def test_other_modes():
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


def test_a_long_listing_is_small(tmp_path):
    # a million files must fit in 1 GiB: 400 bytes each at the peak leave room for the rest
    count = 5000
    for number in range(count):
        (tmp_path / f"picture-{number:08d}.jpg").touch()
    tracemalloc.start()
    source = find_images(tmp_path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source) == count
    assert peak / count < 600
    assert kept / count < 80  # what worker processes are sent: a name and a label
