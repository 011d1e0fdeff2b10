"""The grid and the npz that are made of a complete set of samples."""

import numpy as np
import pytest
from PIL import Image

from dmp_cli.sampling.folder_writer import encode_png
from dmp_cli.sampling.plan import Plan

from .conftest import CONFIG, names_in, pixels_of


def test_the_grid_shows_the_first_images(filled):
    path = filled.draw_grid(Plan(CONFIG), rows=2, columns=2)
    small = np.asarray(Image.open(path).convert("RGB"))
    assert path == filled.path / "grid.png"
    for index in (3, 4):  # the fifth image is not on it
        filled.image_path(index).write_bytes(encode_png(255 - pixels_of(index)))
    changed = np.asarray(Image.open(filled.draw_grid(Plan(CONFIG), rows=2, columns=2)).convert("RGB"))
    assert changed.shape == small.shape
    rows, columns = np.nonzero((changed != small).any(-1))
    assert rows.min() > small.shape[0] / 2 - 8
    assert columns.min() > small.shape[1] / 2 - 8
    assert len(rows) > 0


@pytest.mark.parametrize("labels", [None, np.arange(7) % 2])
def test_npz_is_that_of_numpy(filled, labels):
    path = filled.write_npz(7, labels)
    with np.load(path) as found:
        assert sorted(found) == ["arr_0"] if labels is None else ["arr_0", "arr_1"]
        assert found["arr_0"].dtype == np.uint8
        assert np.array_equal(found["arr_0"], np.stack([pixels_of(index) for index in range(7)]))
        assert labels is None or np.array_equal(found["arr_1"], labels)
    assert names_in(filled.path)[-1] == "samples.npz"
