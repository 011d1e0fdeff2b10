"""dmp_cli.data: which images a step shows, whatever the workers, the start and the unreadable files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from dmp_cli.data.batches import Batch, LiveReader, as_floats, read_batches
from dmp_cli.data.decoding import center_crop
from dmp_cli.data.folder import FolderImages, find_images
from dmp_cli.data.shuffling import Order
from dmp_cli.data.source import ImageSource
from dmp_cli.errors import DataError
from dmp_cli.runtime import randomness

SIZE = 4  # pixels


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def picture(seed: int, *, width: int = SIZE, height: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make(folder: Path, count: int = 7, *, bad: tuple[int, ...] = ()) -> Path:
    """``count`` images, the first three of class a; those in ``bad`` are no images."""
    for index in range(count):
        file = folder / ("a" if index < 3 else "b") / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(index)).save(file)
        if index in bad:
            file.write_bytes(b"no image")
    return folder


def run(source: ImageSource, *, stop: int, start: int = 0, workers: int = 0, **options: object) -> list[Batch]:
    reader = LiveReader(source, image_size=SIZE, channels=options.pop("channels", 3))
    arguments = {"batch_size": 3, "seed": 5, "flip": True, "max_bad": 100, **options}
    return list(read_batches(source, reader, start_step=start, stop_step=stop, workers=workers, **arguments))


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    assert [batch.step for batch in some] == [batch.step for batch in others]
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.indices, other.indices)


def test_batches_hold_the_images_their_indices_name(tmp_path):
    result = run(find_images(make(tmp_path)), stop=5)
    mirrored = 0
    for step, batch in enumerate(result):
        assert (batch.step, as_floats(batch.values).shape, as_floats(batch.values).dtype, batch.bad) == (
            step,
            (3, 3, 4, 4),
            torch.float32,
            [],
        )
        assert (batch.labels.dtype, batch.indices.dtype) == (torch.int64, torch.int64)
        assert as_floats(batch.values).is_contiguous()
        for k in range(3):
            epoch, offset = divmod(step * 3 + k, 7)
            index = int(randomness.permutation("epoch", 7, seed=5, step=epoch)[offset])
            flipped = float(randomness.uniform("flip", seed=5, step=epoch, indices=[index])) < 0.5
            mirrored += flipped
            pixels = picture(index)[:, ::-1] if flipped else picture(index)
            assert (int(batch.indices[k]), int(batch.labels[k])) == (index, 0 if index < 3 else 1)
            assert np.allclose(as_floats(batch.values)[k].permute(1, 2, 0), pixels / 255 * 2 - 1, atol=1e-6)
    assert 0 < mirrored < 15
    assert max(float(as_floats(batch.values).max()) for batch in run(_two_tones(tmp_path / "t"), stop=1)) == 1
    assert min(float(as_floats(batch.values).min()) for batch in run(_two_tones(tmp_path / "t"), stop=1)) == -1


def _two_tones(folder: Path) -> ImageSource:
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.array([[0, 255] * 2] * 4, np.uint8)).save(folder / "0.png")
    return find_images(folder)


def test_without_flip_and_in_grey(tmp_path):
    batch = run(_two_tones(tmp_path / "t"), stop=1, flip=False, channels=1)[0]
    assert as_floats(batch.values).tolist() == [[[[-1, 1, -1, 1]] * 4]] * 3
    assert run(_two_tones(tmp_path / "t"), stop=1, flip=False)[0].values.is_contiguous()


@pytest.mark.parametrize(("count", "batch_size"), [(7, 3), (3, 7), (1, 4), (6, 3)])
def test_every_index_appears_once_per_epoch(count, batch_size):
    order = Order(count, batch_size=batch_size, seed=1)
    stream = [place for step in range(4 * count) for place in order.places(step)]
    assert len(stream) == 4 * count * batch_size
    for epoch in range(4 * batch_size):
        shown = stream[epoch * count : (epoch + 1) * count]
        assert sorted(shown) == [(epoch, index) for index in range(count)]


def test_seed_and_epoch_change_the_order():
    first, other = (Order(50, batch_size=100, seed=seed).places(0) for seed in (1, 2))
    assert [index for _, index in first[:50]] != [index for _, index in first[50:]]
    assert first != other


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_start_change_nothing(tmp_path, workers):
    source = find_images(make(tmp_path, bad=(2, 3, 6)))
    straight = run(source, stop=9)
    state = torch.get_rng_state()
    spread = run(source, stop=9, workers=workers)
    assert_same(spread, straight)
    assert [batch.bad for batch in spread] == [batch.bad for batch in straight]
    assert_same(run(source, start=4, stop=9, workers=workers), straight[4:])
    assert_same(run(source, start=8, stop=9), straight[8:])
    assert run(source, start=9, stop=9, workers=workers) == []
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_zip_and_folder_give_the_same(tmp_path, workers):
    folder = make(tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder).as_posix())
    packed = find_images(tmp_path / "data.zip")
    packed.read(0)  # open here already: workers must not share this process's place in the file
    assert_same(run(packed, stop=6, workers=workers), run(find_images(folder), stop=6))


def test_unreadable_images_are_replaced_by_the_next_and_reported_once(tmp_path):
    good, result = (
        find_images(make(tmp_path / "good")),
        run(find_images(make(tmp_path / "bad", bad=(2, 3, 6))), stop=14),
    )
    instead = {2: 4, 3: 4, 6: 0}  # the next readable one, past the end from the start
    shown = [int(i) for batch in run(good, stop=14) for i in batch.indices]
    assert [int(i) for batch in result for i in batch.indices] == [instead.get(i, i) for i in shown]
    assert all((label == 1) == (index > 2) for b in result for label, index in zip(b.labels, b.indices, strict=True))
    for k, index in enumerate(shown[:21]):  # mirrored by the index that is shown
        mirror = float(randomness.uniform("flip", seed=5, step=k // 7, indices=[instead.get(index, index)])) < 0.5
        left = as_floats(result[k // 3].values)[k % 3, :, :, -1 if mirror else 0]
        assert np.allclose(left.T, picture(instead.get(index, index))[:, 0] / 255 * 2 - 1, atol=1e-6)
    messages = [message for batch in result for message in batch.bad]
    assert sorted(messages) == [
        f"cannot read {tmp_path}/bad/{name}.png: not an image of a known format" for name in ("a/2", "b/3", "b/6")
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_files_end_it_with_one_clean_message(tmp_path, workers):
    source = find_images(make(tmp_path, bad=(2, 3, 6)))
    assert len(run(source, stop=5, workers=workers, max_bad=3)) == 5
    with pytest.raises(DataError) as caught:
        run(source, stop=5, workers=workers, max_bad=2)
    assert caught.value.message.startswith(
        f"3 images in {tmp_path} cannot be read and at most 2 may be bad: cannot read"
    )
    assert all(f"{name}.png: not an image" in caught.value.message for name in ("a/2", "b/3", "b/6"))
    assert "Traceback" not in str(caught.value)


def test_no_readable_image_at_all(tmp_path):
    with pytest.raises(DataError, match=r"none of the 4 images in .* can be read: cannot read .*a/\d.png.*; \.\.\.$"):
        run(find_images(make(tmp_path, 4, bad=(0, 1, 2, 3))), stop=1)


class Deadly(FolderImages):
    """Reading image 13 of 30, which seed 5 shows in step 7, in a worker sends that worker a signal."""

    number = signal.SIGKILL

    def read(self, index: int) -> bytes:
        if index == 13 and get_worker_info() is not None:
            time.sleep(0.2)  # until the parent waits for this step: its death must not meet the parent elsewhere
            os.kill(os.getpid(), self.number)
        return super().read(index)


def test_a_killed_worker_is_an_error_with_a_hint(tmp_path):
    source = find_images(make(tmp_path, 30))
    source.__class__ = Deadly
    with pytest.raises(DataError, match="worker process that reads images was killed") as caught:
        run(source, stop=9, workers=1)
    assert "--workers" in caught.value.hint


# A SIGTERM to the whole group ends the workers, not the parent, which goes on alone; Ctrl-C is left to the parent.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_the_group_leave_the_parent_able_to_go_on(tmp_path, number):
    source = find_images(make(tmp_path, 30))
    straight = run(source, stop=9)
    assert [batch.step for batch in straight if 13 in batch.indices] == [7]
    source.__class__, source.number = Deadly, number
    assert_same(run(source, stop=9, workers=1), straight)


def test_stopping_early_leaves_no_process(tmp_path):
    source = find_images(make(tmp_path))
    stream = read_batches(
        source,
        LiveReader(source, image_size=SIZE, channels=3),
        **{"batch_size": 3, "seed": 5, "flip": True, "max_bad": 0},
        **{"start_step": 0, "stop_step": 10**9, "workers": 2},
    )
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert multiprocessing.active_children() == []


def _adm(image: Image.Image, size: int) -> np.ndarray:
    """The formula of guided-diffusion and DiT, whole resize first, then the crop."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    top, left = (image.height - size) // 2, (image.width - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def test_center_crop_equals_resize_then_crop():
    draw = np.random.default_rng(0)
    for seed in range(150):
        width, height, size = (int(x) for x in draw.integers(2, 70, 3))
        image = Image.fromarray(picture(seed, width=width, height=height))
        cropped = np.asarray(center_crop(image, image_size=size))
        assert np.array_equal(cropped, _adm(image, size)), (width, height, size)


def test_center_crop_by_hand():
    exact = Image.fromarray(picture(1))
    assert np.array_equal(center_crop(exact, image_size=SIZE), picture(1))
    wide = Image.fromarray(picture(2, width=7))  # only cropped: columns 1 to 4
    assert np.array_equal(center_crop(wide, image_size=SIZE), picture(2, width=7)[:, 1:5])
    blocks = Image.fromarray(np.array([[0, 8, 1, 1], [8, 0, 1, 1], [9, 9, 0, 0], [9, 9, 0, 100]], np.uint8))
    assert np.asarray(center_crop(blocks, image_size=2)).tolist() == [[4, 1], [9, 25]]  # means of 2 x 2
    assert set(np.asarray(center_crop(Image.new("L", (1, 1), 77), image_size=5)).ravel()) == {77}
    strip = np.zeros((500_000, 1), np.uint8)  # made whole, it would have 128 million rows
    strip[249_998:250_002] = 77
    assert set(np.asarray(center_crop(Image.fromarray(strip), image_size=256)).ravel()) == {77}
