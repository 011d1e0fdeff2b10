"""A part of a data set, the split that holds images out, and images that two data sets share."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dmp_cli.data import LiveReader, Subset, SubsetReader, find_images, hold_out, refuse_shared
from dmp_cli.data.shuffling import Order
from dmp_cli.errors import DataError
from tests.builders import write_images


def test_a_part_shows_the_images_it_names(tmp_path: Path) -> None:
    images = find_images(write_images(tmp_path / "d", count=12, classes=3))
    part = Subset(images, np.array([1, 4, 11]))
    assert [part.name(k) for k in range(3)] == [images.name(k) for k in (1, 4, 11)]
    assert [part.read(k) for k in range(3)] == [images.read(k) for k in (1, 4, 11)]
    assert part.stamp(2) == images.stamp(11)
    assert part.labels.tolist() == images.labels[[1, 4, 11]].tolist()
    assert (part.classes, part.fingerprint, part.spans) == (images.classes, images.fingerprint, None)
    reader = SubsetReader(LiveReader(images, image_size=8, channels=3), part.indices)
    assert (reader.read(2, mirrored=True) == LiveReader(part, image_size=8, channels=3).read(2, mirrored=True)).all()
    assert reader.take_remarks() == []


def test_a_part_of_shards_keeps_which_images_share_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    source = find_images(write_images(tmp_path / "d", count=12, classes=0))
    for shard in range(3):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for index in range(4 * shard, 4 * shard + 4):
                member = tarfile.TarInfo(f"{index:04d}.png")
                member.size = len(source.read(index))
                tar.addfile(member, io.BytesIO(source.read(index)))
    images = find_images(folder)
    assert images.spans is not None
    part = Subset(images, np.array([0, 2, 3, 8, 11]))  # nothing of the second shard
    assert part.spans is not None
    assert part.spans.tolist() == [0, 3, 5]
    shown = [place for step in range(5) for place in Order(5, batch_size=1, seed=0, spans=part.spans).places(step)]
    assert sorted(index for _, index in shown) == [0, 1, 2, 3, 4]


def test_a_split_takes_its_share_of_each_class_and_depends_on_nothing_else(tmp_path: Path) -> None:
    images = find_images(write_images(tmp_path / "d", count=40, classes=4))
    kept, held = hold_out(images, 0.2)
    assert np.bincount(images.labels[held]).tolist() == [2, 2, 2, 2]
    assert sorted([*kept, *held]) == list(range(40))
    again = hold_out(find_images(tmp_path / "d"), 0.2)
    assert (again[0] == kept).all()
    assert (again[1] == held).all()
    assert held.tolist() != [0, 1, 10, 11, 20, 21, 30, 31]


def test_a_split_that_empties_a_class_or_holds_out_nothing(tmp_path: Path) -> None:
    images = find_images(write_images(tmp_path / "d", count=4, classes=4))
    with pytest.raises(DataError, match=r"--val-split 0.6 would hold out all 1 images of "):
        hold_out(images, 0.6)
    with pytest.raises(DataError, match=r"--val-split 0.1 of 4 images holds out none"):
        hold_out(images, 0.1)


def test_images_that_both_hold_are_named_by_digest(tmp_path: Path) -> None:
    training = find_images(write_images(tmp_path / "d", count=6, classes=0))
    other = write_images(tmp_path / "v", count=3, classes=0, seed=5)
    refuse_shared(find_images(other), training, which=range(3))
    (other / "copy.png").write_bytes(training.read(4))
    held_out = find_images(other)
    with pytest.raises(DataError, match=r"1 held-out images are trained on too: .*copy.png is .*0004.png \(SHA-256"):
        refuse_shared(held_out, training, which=range(len(held_out)))
    refuse_shared(held_out, training, which=[0, 1, 2])  # those that are drawn
