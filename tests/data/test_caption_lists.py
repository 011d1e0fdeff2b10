"""Several captions of one image, of which each epoch shows one; null and what is no text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.data.batches import read_batches
from dmp_cli.data.folder import find_images
from dmp_cli.data.readers import LiveReader
from dmp_cli.errors import DataError
from dmp_cli.runtime import randomness
from tests.builders import write_images
from tests.zoo.captioned import json_lines

TEXTS: list[Any] = [["one", " two ", "three"], "alone", ["four", "five"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = write_images(tmp_path / "images", count=3, classes=0)
    rows = ({"file_name": f"{index:04d}.png", "text": text} for index, text in enumerate(TEXTS))
    (path / "metadata.jsonl").write_text(json_lines(*rows))
    return path


def shown(path: Path, *, seed: int, workers: int = 0, start: int = 0, share: range | None = None) -> list[list[Any]]:
    source = find_images(path)
    reader = LiveReader(source, image_size=8, channels=3)
    how: dict[str, Any] = {"batch_size": 3, "flip": True, "max_bad": 0, "captions": True, "share": share}
    found = read_batches(source, reader, seed=seed, start_step=start, stop_step=40, workers=workers, **how)
    return [list(zip(batch.indices.tolist(), batch.captions or [], strict=True)) for batch in found]


def test_each_epoch_draws_one_of_them(folder: Path) -> None:
    source = find_images(folder)
    assert source.captions(0) == ["one", "two", "three"]
    assert source.caption(0) == "one"
    steps = shown(folder, seed=3)
    for epoch, step in enumerate(steps):  # three images a step: a step is an epoch
        for index, caption in step:
            texts = source.captions(index)
            draw = randomness.generator("caption", seed=3, step=epoch, index=index).random()
            assert caption == texts[int(draw * len(texts))]
    counts = Counter(caption for step in steps for _, caption in step)
    assert counts["alone"] == 40
    assert min(counts[text] for text in ("one", "two", "three", "four", "five")) >= 6
    assert shown(folder, seed=4) != steps


def test_neither_workers_nor_the_start_nor_other_processes_matter(folder: Path) -> None:
    steps = shown(folder, seed=3)
    assert shown(folder, seed=3, workers=2) == steps
    assert shown(folder, seed=3, start=17) == steps[17:]
    assert [step[0] for step in shown(folder, seed=3, share=range(1, 2))] == [step[1] for step in steps]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (3, "text is a number, 3, not text"),
        (True, "text is true or false, true, not text"),
        ({"en": "fox"}, 'text is an object, {"en": "fox"}, not text'),
        (["a", None], "text holds null, not text"),
        (["a", ["b"]], r'text holds a list, \["b"\], not text'),
    ],
)
def test_what_is_no_text_is_said_for_what_it_is(folder: Path, text: Any, message: str) -> None:
    (folder / "metadata.jsonl").write_text(json_lines({"file_name": "0001.png", "text": text}))
    with pytest.raises(DataError, match=f"metadata.jsonl, line 1: {message}") as caught:
        find_images(folder)
    assert caught.value.hint == "A caption is a string, or a list of strings."


def test_null_is_none_and_the_file_beside_counts(folder: Path) -> None:
    rows = [{"file_name": "0000.png", "text": None}, {"file_name": "0001.png"}, {"file_name": "0002.png", "text": []}]
    (folder / "metadata.jsonl").write_text(json_lines(*rows))
    (folder / "0001.txt").write_text("beside")
    source = find_images(folder)
    assert source.captioned.tolist() == [False, True, False]
    assert source.caption(1) == "beside"
    with pytest.raises(DataError, match=r"0000.png has no caption"):
        source.caption(0)


def test_ordinary_captions_leave_the_fingerprint_as_it_was(folder: Path) -> None:
    rows = [{"file_name": "0000.png", "text": "a"}, {"file_name": "0001.png", "text": "b"}]
    (folder / "metadata.jsonl").write_text(json_lines(*rows))
    (folder / "0002.txt").write_text("c")
    assert find_images(folder).fingerprint == find_images(folder, rules=1).fingerprint
