"""dmp_cli.data.bounds: files of a folder are regular, not too large, and no links out of the folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli.data import bounds, decoding
from dmp_cli.data.bounds import Bounds
from dmp_cli.data.decoding import decode
from dmp_cli.data.folder import find_images
from dmp_cli.data.shard_paths import find_shards
from dmp_cli.data.source import ImageSource
from dmp_cli.errors import DataError

from .image_files import encoded
from .shard_files import png, write_shards

FOLLOWING = Bounds(follow_links=True)


def read_all(images: ImageSource) -> None:
    for index in range(len(images)):
        images.read(index)
    images.captions(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("data/a/1.png", "data/b/2.png", "elsewhere/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(0))
    return tmp_path / "data"


@pytest.mark.parametrize("link", ["a/3.png", "c", "a/2.txt", "classes.txt", "metadata.jsonl"])
def test_a_link_out_of_the_folder(link: str, folder: Path) -> None:
    target = folder.parent / "elsewhere" / ("." if link == "c" else "3.png")
    if link.endswith(("txt", "jsonl")):
        target = folder.parent / "elsewhere" / "text"
        target.write_text("a\nb\n" if link == "classes.txt" else '{"file_name": "a/1.png", "text": "x"}')
    (folder / link).symlink_to(target)
    with pytest.raises(DataError, match=f"{link} is a link to .*elsewhere.*, out of the data set's folder") as error:
        find_images(folder)
    assert "--follow-links" in str(error.value)
    assert len(find_images(folder, bounds=FOLLOWING)) == 2 + (link in ("a/3.png", "c"))


def test_links_that_stay_inside(folder: Path) -> None:
    (folder / ".store").mkdir()
    (folder / ".store" / "blob").write_bytes(png(1))
    (folder / "a" / "3.png").symlink_to("../.store/blob")
    (folder / "c").symlink_to("b")
    (folder.parent / "by-link").symlink_to(folder)  # a folder that is a link itself
    assert find_images(folder).fingerprint == find_images(folder.parent / "by-link").fingerprint
    assert len(find_images(folder.parent / "by-link")) == 4


def test_a_name_that_only_begins_like_the_folder(folder: Path) -> None:
    (folder.parent / "data-2").mkdir()
    (folder.parent / "data-2" / "3.png").write_bytes(png(0))
    (folder / "a" / "3.png").symlink_to("../../data-2/3.png")
    with pytest.raises(DataError, match="out of the data set's folder"):
        find_images(folder)


def test_shards_by_link(tmp_path: Path) -> None:
    write_shards(tmp_path / "elsewhere", [2])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-000.tar").symlink_to("../elsewhere/train-000.tar")
    for name in ("", "train-{000..000}.tar", "*.tar"):
        with pytest.raises(DataError, match=r"train-000\.tar is a link to"):
            find_images(tmp_path / "data" / name)
        assert len(find_images(tmp_path / "data" / name, bounds=FOLLOWING)) == 2
    assert len(find_images(tmp_path / "data" / "train-000.tar")) == 2  # the user has named it


@pytest.mark.parametrize("name", ["a/3.png", "a/1.txt", "classes.txt", "metadata.jsonl", "metadata.csv"])
def test_a_fifo_in_the_folder(name: str, folder: Path) -> None:
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match=f"{name}: it is a FIFO, not a file"):
        read_all(find_images(folder))


def test_the_data_itself_is_a_fifo_or_a_device(tmp_path: Path) -> None:
    for name in ("fifo", "fifo.tar", "fifo.zip"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=f"{name} is a FIFO, neither a folder nor a file"):
            find_images(tmp_path / name)
    with pytest.raises(DataError, match="/dev/zero is a device"):
        find_images("/dev/zero")


def test_a_shard_of_a_folder_is_a_fifo(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, [1])
    os.mkfifo(folder / "train-001.tar")
    with pytest.raises(DataError, match=r"train-001\.tar: it is a FIFO"):
        find_images(folder)
    (folder / "train-001.tar").unlink()
    (folder / "train-000.tar").write_bytes((folder / "train-000.tar").read_bytes()[:-1024].rstrip(b"\0") + bytes(300))
    os.mkfifo(folder / "train-000.idx")
    with pytest.raises(DataError, match=r"train-000\.tar"):
        find_images(folder)


def test_a_file_that_is_too_large(folder: Path) -> None:
    os.truncate(folder / "a" / "1.png", 1 << 40)  # a hole
    with pytest.raises(DataError, match=r"1\.png: it has 1,099,512 MB, and --max-file-size is 512 MB"):
        find_images(folder).read(0)


def test_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "physical_memory", lambda: 100)
    with pytest.raises(DataError, match=r"1\.png: it has 0 MB, and this machine has 0 MB of memory"):
        find_images(folder).read(0)
    monkeypatch.setattr(decoding, "physical_memory", lambda: 16 * 64 - 1)
    with pytest.raises(DataError, match="it has 64 pixels, and this machine has 0 MB of memory"):
        decode(png(0), channels=3, name="1.png")
    monkeypatch.setattr(decoding, "physical_memory", lambda: 16 * 64)
    decode(png(0), channels=3, name="1.png")


def test_rows_at_a_time_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    clear = Image.fromarray(random.integers(0, 256, (13, 7, 4), dtype=np.uint8), "RGBA")
    palette = clear.convert("RGB").quantize(8)
    deep = Image.fromarray(random.integers(0, 65536, (13, 7)).astype(np.uint16))
    files = [encoded(clear, "PNG"), encoded(palette, "PNG", transparency=3), encoded(deep, "PNG")]
    files.append(encoded(deep, "PNG", transparency=int(np.asarray(deep)[5, 5])))
    whole = [np.asarray(decode(file, channels=3, name="")) for file in files]
    for pixels in (1, 20, 90):
        monkeypatch.setattr(decoding, "_ROWS", pixels)
        parts = [np.asarray(decode(file, channels=3, name="")) for file in files]
        assert all((one == other).all() for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize(
    "pattern",
    ["{0..999999999999}", "{0..999}-{0..999}", "{0..9}{0..9}{0..9}{0..9}{0..9}{0..9}", "{0.." + "9" * 60 + "}"],
)
def test_patterns_are_counted_before_they_are_expanded(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names more than 100,000 shards"):
        find_shards(tmp_path / f"a-{pattern}.tar")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        find_images(tmp_path / ("a" * 5000))


def test_a_line_of_csv_without_end(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(0))
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.png," + "a" * 200_000)
    with pytest.raises(DataError, match=r"metadata\.csv, line \d is not valid CSV: field larger"):
        find_images(tmp_path)


def test_a_caption_beside_an_image_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(0))
    (tmp_path / "1.txt").write_bytes(bytes(16_000_001))
    with pytest.raises(DataError, match=r"1\.txt: it has 16 MB; a caption has 16 MB at most"):
        find_images(tmp_path).captions(0)
