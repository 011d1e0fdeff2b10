"""Buckets: which sizes there are, which image gets which, and which images a step shows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli.config import Sides
from dmp_cli.data.batches import Batch, read_batches
from dmp_cli.data.bucket_order import BucketOrder
from dmp_cli.data.bucket_reader import BucketReader
from dmp_cli.data.buckets import BucketRule, Buckets, fill_buckets, find_pictures
from dmp_cli.data.folder import find_images
from dmp_cli.data.framing import Frame
from dmp_cli.data.readers import LiveReader
from dmp_cli.data.subset import Subset
from dmp_cli.errors import DataError

BASE = BucketRule(Sides(1024, 1024), 64, 512, 2048)
SMALL = BucketRule(Sides(16, 16), 4, 8, 32)


def at_random(*counts: int) -> Buckets:
    """Buckets of so many images each, whose images lie at random among each other."""
    bucket = np.random.default_rng(3).permutation(np.repeat(np.arange(len(counts)), counts))
    sizes = tuple(Sides(8 + 4 * number, 16) for number in range(len(counts)))
    return Buckets(sizes, bucket, np.array([sizes[number] for number in bucket]))


def test_the_sizes_of_a_megapixel() -> None:
    sizes = BASE.sizes()
    assert {Sides(1024, 1024), Sides(1216, 832), Sides(832, 1216), Sides(2048, 512)} <= set(sizes)
    assert all(side % 64 == 0 and 512 <= side <= 2048 for sides in sizes for side in sides)
    assert all(sides.height * sides.width <= 1024**2 for sides in sizes)
    assert {Sides(sides.width, sides.height) for sides in sizes} == set(sizes)
    ratios = [sides.height / sides.width for sides in sizes]
    assert ratios == sorted(ratios)


@pytest.mark.parametrize(
    ("height", "width", "upscaled", "kept"),
    [
        (3000, 3000, (1024, 1024), (1024, 1024)),
        (3648, 2496, (1216, 832), (1216, 832)),
        (9000, 100, (2048, 512), (2048, 64)),  # 100 pixels: one step of 64
        (600, 410, (1216, 832), (576, 384)),
        (1216, 831, (1216, 832), (1216, 768)),
        (30, 30, (1024, 1024), (64, 64)),  # less than a step: it is enlarged to one
    ],
)
def test_which_size_a_picture_gets(height: int, width: int, upscaled: tuple[int, int], kept: tuple[int, int]) -> None:
    picture = Sides(height, width)
    assert BASE.size_for(picture, BASE.sizes()) == upscaled
    assert BASE._replace(upscale=False).size_for(picture, BASE.sizes()) == kept


def test_buckets_that_are_too_small_are_given_up() -> None:
    tall, wide, square = [20, 12], [12, 20], [16, 16]
    pictures = np.array([tall] * 5 + [wide] * 2 + [[30, 10]] + [square] * 4 + [[0, 0]])
    buckets, told = fill_buckets(pictures, SMALL, batch_size=4)
    assert buckets.counts() == {"16x16": 6, "12x20": 7}  # the unreadable one with the most
    assert told == ["1 image of 8x24 to 12x20", "2 images of 20x12 to 16x16"]
    assert [members.tolist() for members in buckets.members] == [[5, 6, 8, 9, 10, 11], [0, 1, 2, 3, 4, 7, 12]]
    assert buckets.follow(7, 1) == 12
    assert buckets.follow(12, 1) == 0
    alone, told = fill_buckets(pictures, SMALL, batch_size=100)
    assert len(alone.sizes) == 1
    assert fill_buckets(np.zeros((3, 2), np.int64), SMALL, batch_size=2)[0].counts() == {"16x16": 3}


def test_how_an_image_was_cut() -> None:
    buckets = Buckets((Sides(16, 8),), np.zeros(2, np.int64), np.array([[16, 13], [64, 64]]))
    assert buckets.frame(0, mirrored=False) == Frame(16, 13, 0, 2, 16, 8)  # 5 columns cut off: 2 and 3
    assert buckets.frame(0, mirrored=True) == Frame(16, 13, 0, 3, 16, 8)
    assert buckets.frame(1, mirrored=False) == Frame(64, 64, 0, 4, 16, 8)  # at 16 x 16, 4 columns on each side


def test_the_order_is_a_function_of_seed_and_step_on_any_number_of_processes() -> None:
    buckets, size, steps = at_random(7, 6, 12), 6, 60
    whole = BucketOrder(buckets, batch_size=size, seed=5)
    shown = [whole.places(step) for step in range(steps)]
    for step in (59, 3, 30, 0):
        assert BucketOrder(buckets, batch_size=size, seed=5).places(step) == shown[step]
    for processes in (2, 3):
        each = size // processes
        orders = [BucketOrder(buckets, batch_size=size, seed=5) for _ in range(processes)]
        shares = [range(rank * each, (rank + 1) * each) for rank in range(processes)]
        for step in range(steps):
            parts = [order.places(step, share=share) for order, share in zip(orders, shares, strict=True)]
            assert [place for part in parts for place in part] == shown[step]
    assert [BucketOrder(buckets, batch_size=size, seed=6).places(step) for step in range(steps)] != shown


def test_a_batch_holds_one_bucket_and_an_epoch_every_image() -> None:
    buckets, size = at_random(7, 6, 12), 6
    order = BucketOrder(buckets, batch_size=size, seed=5)
    epochs = 6  # after which all buckets end with a whole batch
    steps = epochs * 25 // size
    shown = [order.places(step) for step in range(steps)]
    assert all(len({int(buckets.bucket[index]) for _, index in places}) == 1 for places in shown)
    assert Counter(index for places in shown for _, index in places) == dict.fromkeys(range(25), epochs)
    assert set(Counter(place for places in shown for place in places).values()) == {1}
    first = [index for places in shown[:4] for _, index in places]  # 7 // 6 + 6 // 6 + 12 // 6 batches
    assert len(set(first)) == 24
    kinds = [int(buckets.bucket[places[0][1]]) for places in shown]
    assert kinds != sorted(kinds)


def test_images_that_share_files_are_read_a_few_files_at_a_time() -> None:
    buckets = Buckets((Sides(8, 16), Sides(16, 8)), np.arange(400) % 2, np.ones((400, 2), np.int64))
    spans = np.arange(0, 401, 10)  # forty files of ten images, five of each bucket
    order = BucketOrder(buckets, batch_size=10, seed=5, spans=spans)
    epochs = [[index for step in range(k * 40, k * 40 + 40) for _, index in order.places(step)] for k in range(2)]
    for shown in epochs:
        assert sorted(shown) == list(range(400))
        for bucket in (0, 1):
            own = [index // 10 for index in shown if index % 2 == bucket]
            assert max(len(set(own[start : start + 40])) for start in range(0, 200, 40)) == 8
    assert epochs[0] != epochs[1]


def test_fewer_images_than_a_batch() -> None:
    order = BucketOrder(at_random(2), batch_size=5, seed=0)
    shown = [index for step in range(4) for _, index in order.places(step)]
    assert Counter(shown) == {0: 10, 1: 10}


def write_shapes(folder: Path) -> Path:
    folder.mkdir()
    for index, (width, height) in enumerate([(24, 16), (16, 16), (16, 32)] * 4):
        pixels = np.full((height, width, 3), 10 * index, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


def batches(folder: Path, *, workers: int = 0) -> list[Batch]:
    images = find_images(folder)
    buckets, _ = fill_buckets(find_pictures(images), SMALL, batch_size=2)
    readers = [
        LiveReader(Subset(images, members), image_size=sides.written, channels=3)
        for members, sides in zip(buckets.members, buckets.sizes, strict=True)
    ]
    how = {"batch_size": 2, "seed": 1, "flip": True, "max_bad": 8}
    reader = BucketReader(buckets, readers)
    return list(read_batches(images, reader, start_step=0, stop_step=12, workers=workers, **how))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_one_shape(tmp_path: Path, workers: int) -> None:
    shapes = set()
    for batch in batches(write_shapes(tmp_path / "shapes"), workers=workers):
        height, width = batch.values.shape[2:]
        shapes.add((height, width))
        assert batch.values[:, 0, 0, 0].tolist() == (10 * batch.indices).tolist()
        assert batch.frames is not None
        for index, frame in zip(batch.indices.tolist(), batch.frames.tolist(), strict=True):
            assert frame[:2] == [[16, 24], [16, 16], [32, 16]][index % 3]
            assert frame[4:] == [height, width]
    assert shapes == {(12, 20), (16, 16), (20, 12)}


def test_an_unreadable_image_is_replaced_by_one_of_its_bucket(tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "shapes")
    spoil(folder / "05.png")
    seen = batches(folder)
    assert sum(len(batch.bad) for batch in seen) == 1
    assert 5 not in {int(index) for batch in seen for index in batch.indices}
    for name in ("02", "08", "11"):
        spoil(folder / f"{name}.png")
    with pytest.raises(DataError, match="no image of a bucket can be read: cannot read"):
        batches(folder)


def spoil(path: Path) -> None:
    """Leave the header, which tells the shape, and half of the pixels."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def test_the_header_tells_the_shape_of_an_upright_picture(tmp_path: Path) -> None:
    turned = Image.new("RGB", (20, 10))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "0.jpg", exif=exif)
    Image.new("L", (20, 10)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    assert find_pictures(find_images(tmp_path)).tolist() == [[20, 10], [10, 20], [0, 0]]
