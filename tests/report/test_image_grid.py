"""Grids of images: sizes, places, scales and labels."""

import numpy as np

from dmp_cli.report.image_grid import draw_image_grid

from .pictures import pixels


def test_small_images_are_enlarged_exactly():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    picture = pixels(draw_image_grid(images, rows=2, columns=3))
    assert picture.shape == (2 + 2 * 66, 2 + 3 * 66, 3)
    for index, image in enumerate(images):
        row, column = divmod(index, 3)
        tile = picture[2 + 66 * row :, 2 + 66 * column :][:64, :64]
        np.testing.assert_array_equal(tile, np.kron(image, np.ones((8, 8, 3), int)))
    assert (picture[:2] == 255).all()


def test_large_images_keep_their_pixels():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    picture = pixels(draw_image_grid([image], rows=1, columns=1))
    assert picture.shape == (8 + 264, 8 + 264, 3)
    np.testing.assert_array_equal(picture[8:264, 8:264], image)


def test_a_given_scale_holds():
    picture = pixels(draw_image_grid(np.zeros((1, 8, 8, 3), np.uint8), rows=1, columns=1, scale=2))
    assert (picture == 0).all(-1).sum() == 16 * 16


def test_missing_images_leave_their_place_empty_and_surplus_ones_are_left_out():
    images = np.zeros((3, 64, 64, 1), np.uint8)
    assert (pixels(draw_image_grid(images, rows=2, columns=2)) == 0).all(-1).sum() == 3 * 64 * 64
    assert (pixels(draw_image_grid(images, rows=1, columns=2)) == 0).all(-1).sum() == 2 * 64 * 64


def test_images_of_several_sizes_are_centred():
    images = [np.full((64, 64, 3), 9, np.uint8), np.full((128, 128), 7, np.uint8)]
    picture = pixels(draw_image_grid(images, rows=1, columns=2))
    rows, columns = np.nonzero((picture == 9).all(-1))
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == (2 * 4 + 127, 2 * 4 + 127)


def test_labels_of_rows_heads_and_images():
    images = np.zeros((4, 64, 64, 3), np.uint8)
    plain = pixels(draw_image_grid(images, rows=2, columns=2))
    by_row = pixels(draw_image_grid(images, rows=2, columns=2, labels=["base", "DMP"], heads=["0", "1"]))
    below = pixels(draw_image_grid(images, rows=2, columns=2, labels=["a", "b", "c", "g"]))
    assert by_row.shape[0] > plain.shape[0]
    assert by_row.shape[1] > plain.shape[1]
    assert below.shape[0] > plain.shape[0]
    assert below.shape[1] == plain.shape[1]
    for picture, band in ((by_row, by_row[22:, :30]), (by_row, by_row[:18]), (below, below[67:84])):
        assert band.min() < 90  # there is ink
        # and no tile lost a pixel to it
        assert (picture == 0).all(-1).sum() == 4 * 64 * 64


def test_long_labels_widen_small_tiles_and_are_then_cut():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    short, long, endless = (
        pixels(draw_image_grid(images, rows=1, columns=2, labels=["x", "w" * count])).shape[1] for count in (1, 9, 99)
    )
    assert short < long < endless <= 2 * 128 + 3 * 4
