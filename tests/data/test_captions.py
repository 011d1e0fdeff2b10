"""Captions of images: in metadata.jsonl, beside the images, in folders and zips, and what is wrong with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.data.batches import read_batches
from dmp_cli.data.folder import find_images
from dmp_cli.data.readers import LiveReader
from dmp_cli.data.source import ImageSource
from dmp_cli.errors import DataError
from tests.builders import write_images


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", count=3, classes=0)


def all_captions(path: Path) -> list[str]:
    images = find_images(path)
    return [images.caption(index) for index in range(len(images))]


def test_lines(folder: Path) -> None:
    rows: list[Any] = [{"file_name": f"{index:04d}.png", "text": f" caption {index} ", "other": 1} for index in (2, 0)]
    rows.append({"file_name": "./0001.png", "text": None, "caption": "caption 1"})
    (folder / "metadata.jsonl").write_text(lines(*rows) + "\n")
    assert all_captions(folder) == ["caption 0", "caption 1", "caption 2"]
    assert find_images(folder).has_captions


def test_files_beside_the_images(folder: Path) -> None:
    for index in range(3):
        (folder / f"{index:04d}.txt").write_text(f"\ufeffbeside {index}\n", encoding="utf-8")
    (folder / "notes.txt").write_text("of no image")
    assert all_captions(folder) == ["beside 0", "beside 1", "beside 2"]


def test_a_line_wins_and_some_may_be_missing(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text(lines({"file_name": "0000.png", "caption": "line"}))
    for index in (0, 1):
        (folder / f"{index:04d}.txt").write_text(f"beside {index}")
    images = find_images(folder)
    assert [images.caption(0), images.caption(1)] == ["line", "beside 1"]
    assert not images.has_captions
    assert images.missing_captions() == [str(folder / "0002.png")]
    with pytest.raises(DataError, match=r"0002\.png has no caption"):
        images.caption(2)


@pytest.mark.parametrize("classes", [0, 2])
def test_a_zip_says_the_same(tmp_path: Path, classes: int) -> None:
    folder = write_images(tmp_path / "top" / "images", count=4, classes=classes)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    (folder / "metadata.jsonl").write_text(lines(*({"file_name": name, "text": f"of {name}"} for name in names)))
    shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    shutil.make_archive(str(tmp_path / "wrapped"), "zip", folder.parent)
    expected = [f"of {name}" for name in names]
    assert all_captions(folder) == expected
    assert all_captions(tmp_path / "zipped.zip") == expected
    if classes:  # the habit of zips to hold one top folder is known for class folders
        assert all_captions(tmp_path / "wrapped.zip") == expected
    assert find_images(folder).fingerprint == find_images(tmp_path / "zipped.zip").fingerprint


def test_captions_are_in_the_fingerprint(folder: Path) -> None:
    bare = find_images(folder).fingerprint
    (folder / "notes.txt").write_text("of no image")
    assert find_images(folder).fingerprint == bare
    (folder / "0000.txt").write_text("a")
    one = find_images(folder).fingerprint
    (folder / "0000.txt").write_text("ab")
    two = find_images(folder).fingerprint
    (folder / "metadata.jsonl").write_text(lines({"file_name": "0001.png", "text": "x"}))
    three = find_images(folder).fingerprint
    (folder / "metadata.jsonl").write_text(lines({"file_name": "0001.png", "text": "y"}))
    assert len({bare, one, two, three, find_images(folder).fingerprint}) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n", "metadata.jsonl, line 1 lacks file_name or text"),
        (lines({"file_name": "0000.png", "text": "a"}) + "oops\n", "metadata.jsonl, line 2 is not valid JSON"),
        (lines({"file_name": "no.png", "text": "a"}), "line 1: there is no image no.png"),
        (lines(*[{"file_name": "0000.png", "text": "a"}] * 2), "line 2: 0000.png has a caption already"),
        (lines({"file_name": "0000.png", "text": 3}), "line 1: text is a number, 3, not text"),
        ("[1]\n", "line 1 lacks file_name or text"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, text: str, message: str) -> None:
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        find_images(folder)


def read_live(folder: Path) -> tuple[ImageSource, LiveReader]:
    source = find_images(folder)
    return source, LiveReader(source, image_size=8, channels=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_carry_the_caption_of_the_image_that_is_shown(folder: Path, workers: int) -> None:
    for index in range(3):
        (folder / f"{index:04d}.txt").write_text(f"beside {index}")
    (folder / "0001.png").write_bytes(b"broken")
    how: dict[str, Any] = {"batch_size": 2, "seed": 0, "start_step": 0, "stop_step": 6}
    found = list(read_batches(*read_live(folder), **how, flip=True, workers=workers, max_bad=1, captions=True))
    for batch in found:
        assert batch.captions == [f"beside {index}" for index in batch.indices.tolist()]
    assert {index for batch in found for index in batch.indices.tolist()} == {0, 2}
    silent = next(iter(read_batches(*read_live(folder), **how, flip=True, workers=0, max_bad=1)))
    assert silent.captions is None


def test_a_caption_that_is_no_text_counts_as_a_bad_image(folder: Path) -> None:
    for index in range(3):
        (folder / f"{index:04d}.txt").write_bytes(b"K\xe4se" if index == 1 else b"fine")
    how: dict[str, Any] = {"batch_size": 3, "seed": 0, "start_step": 0, "stop_step": 1}
    (batch,) = read_batches(*read_live(folder), **how, flip=False, workers=0, max_bad=1, captions=True)
    assert len(batch.bad) == 1
    assert "0001.txt is not UTF-8 text" in batch.bad[0]


@pytest.mark.parametrize("letter", ["\u2028", "\u0085"])
def test_a_caption_may_hold_a_letter_that_ends_lines_elsewhere(folder: Path, letter: str) -> None:
    rows = [{"file_name": f"{index:04d}.png", "text": f"one{letter}two"} for index in range(3)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)
    (folder / "metadata.jsonl").write_bytes(text.encode())
    assert all_captions(folder) == [f"one{letter}two"] * 3
