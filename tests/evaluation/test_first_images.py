"""The first images of folders, in rows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli.evaluation.first_images import draw_rows, read_first_images

from .conftest import draw_pictures, write_folder


def test_the_first_images_are_read_in_order(tmp_path: Path) -> None:
    found = read_first_images(write_folder(tmp_path / "a", 5, seed=1), count=3)
    np.testing.assert_array_equal(found, draw_pictures(5, seed=1)[:3])
    assert len(read_first_images(tmp_path / "a", count=9)) == 5


def test_rows_are_cut_to_the_shortest() -> None:
    long, short = list(draw_pictures(4, seed=1)), list(draw_pictures(2, seed=2))
    one, other = (Image.open(io.BytesIO(draw_rows([first, short], labels=["a", "b"]))) for first in (long, long[:2]))
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_images_of_very_many_folders_are_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "a", 2, seed=1)
    side = read_first_images(folder, count=2)[0].shape[0]
    monkeypatch.setattr("dmp_cli.evaluation.first_images._SHOWN_PIXELS", 2 * 10 * side * side)
    (same, _), (small, _) = (read_first_images(folder, count=2, folders=number) for number in (10, 11))
    assert (same.shape, small.shape) == ((side, side, 3), (-(-side // 2), -(-side // 2), 3))
