"""dmp_cli.data.folder: which files of a folder or zip are found, in which order and class."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dmp_cli.data.folder import find_images
from dmp_cli.errors import DataError

from .image_files import encoded, noise


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


def test_the_hint_names_one_of_several_splits(tmp_path):
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
