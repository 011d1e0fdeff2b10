"""Random parts of images in buckets: which part is a function of (seed, epoch, image), and the frame says which."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmp_cli.config import Sides
from dmp_cli.data.batches import read_batches
from dmp_cli.data.bucket_reader import BucketReader
from dmp_cli.data.buckets import Buckets
from dmp_cli.data.decoding import center_crop
from dmp_cli.data.folder import find_images
from dmp_cli.data.framing import Cut, Frame, find_frame
from dmp_cli.data.readers import LiveReader

COUNT, EPOCHS = 6, 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of 16 rows and 24 columns, whose red is the column and whose green is the picture."""
    for index in range(COUNT):
        pixels = np.zeros((16, 24, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = np.arange(24), index
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def shown(folder: Path, *, random_crop: bool = True, **how: Any) -> list[tuple[int, list[int], int, int]]:
    """Image, frame, first and last column of every image of every step."""
    images = find_images(folder)
    buckets = Buckets((Sides(16, 16),), np.zeros(COUNT, np.int64), np.array([[16, 24]] * COUNT))
    reader = BucketReader(buckets, [LiveReader(images, image_size=16, channels=3)], random_crop=random_crop)
    told = {"seed": 1, "start_step": 0, "stop_step": COUNT * EPOCHS // 2, "workers": 0, "max_bad": 0, "flip": True}
    found = []
    for batch in read_batches(images, reader, batch_size=2, **{**told, **how}):
        assert batch.frames is not None
        for index, frame, values in zip(batch.indices.tolist(), batch.frames.tolist(), batch.values, strict=True):
            assert (values[1] == index).all()
            found.append((index, frame, int(values[0, 0, 0]), int(values[0, 0, -1])))
    return found


def test_the_frame_is_that_of_the_part_which_is_shown(folder: Path) -> None:
    found = shown(folder)
    for _, (height, width, top, left, *target), first, last in found:
        assert (height, width, top, target) == (16, 24, 0, [16, 16])
        # as they are columns left to left + 15; mirrored, columns 23 - left down to 8 - left
        assert (first, last) in ((left, left + 15), (23 - left, 8 - left))
    assert {first < last for *_, first, last in found} == {True, False}
    places = Counter(min(first, last) for *_, first, last in found)
    assert sorted(places) == list(range(9))
    assert max(places.values()) < 3 * min(places.values())  # 20 of each are expected
    assert len({min(first, last) for index, _, first, last in found if index == 0}) > 5
    assert {min(first, last) for *_, first, last in shown(folder, random_crop=False)} == {4}


def test_it_is_the_same_part_however_the_steps_are_read(folder: Path) -> None:
    whole = shown(folder)
    assert shown(folder, start_step=20) == whole[40:]
    assert shown(folder, workers=2, stop_step=6) == whole[:12]
    halves = [shown(folder, share=range(place, place + 1)) for place in (0, 1)]
    assert [one for pair in zip(*halves, strict=True) for one in pair] == whole
    assert shown(folder, seed=2) != whole


def test_a_part_by_hand() -> None:
    picture, target = Sides(64, 40), Sides(16, 16)  # halved to 32 x 20, resized to 26 x 16
    assert find_frame(picture, target) == Frame(64, 40, 5, 0, 16, 16)
    assert find_frame(picture, target, cut=Cut(0.0, 0.5)) == Frame(64, 40, 0, 0, 16, 16)
    assert find_frame(picture, target, cut=Cut(0.999, 0.0), mirrored=True) == Frame(64, 40, 10, 0, 16, 16)
    assert find_frame(Sides(16, 24), target, cut=Cut(0.0, 0.3), mirrored=True) == Frame(16, 24, 0, 6, 16, 16)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 40, 3), dtype=np.uint8))
    whole = np.asarray(center_crop(image, image_size="16x26"))
    for down, top in ((0.0, 0), (0.5, 5), (0.999, 10)):
        part = np.asarray(center_crop(image, image_size=16, cut=Cut(down, 0.0)))
        assert np.array_equal(part, whole[top : top + 16])
