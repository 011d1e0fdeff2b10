"""dmp_cli.data.batches: which images a step shows, and what takes the place of unreadable ones."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli.data.batches import as_floats, to_uint8
from dmp_cli.data.folder import find_images
from dmp_cli.data.source import ImageSource
from dmp_cli.errors import DataError
from dmp_cli.runtime import randomness

from .batch_runs import assert_same, make, run
from .image_files import picture


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


def test_floats_are_rounded_to_256_levels():
    values = torch.tensor([-2.0, -1.0, -1 + 1.01 / 255, 0.0, 0.999, 1.0, 7.0]).view(1, 1, 1, 7)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 0, 1, 128, 255, 255, 255]
    assert to_uint8(torch.zeros(2, 3, 4, 5)).shape == (2, 4, 5, 3)
    every = torch.arange(256) / 127.5 - 1
    assert to_uint8(every.view(1, 1, 1, 256)).ravel().tolist() == list(range(256))
