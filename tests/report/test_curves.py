"""Curves: each has its own colour, and single points and gaps are visible."""

import numpy as np

from dmp_cli.report import curves

from .pictures import pixels


def test_curves_have_their_own_colours():
    steps = np.arange(100)
    series = {"base": (steps, np.ones(100)), "DMP $^$": (steps, 1 / (1 + steps)), "broken": (steps, steps * np.nan)}
    picture = pixels(curves.draw_curves(series, xlabel="step", ylabel="loss", title="Loss"))
    assert picture.shape == (620, 960, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (picture == colour).all(-1).sum() > 500


def test_a_curve_of_one_point_is_visible():
    picture = pixels(curves.draw_curves({"a": ([3], [2.5])}, xlabel="x", ylabel="y"))
    # the dot stands in the middle; the name is at the right
    assert (picture[:, :1000] == (0x00, 0x72, 0xB2)).all(-1).any()


def test_a_gap_stays_a_gap():
    x = np.arange(300)
    y = np.where((x < 100) | (x >= 200), 0.0, np.inf)
    picture = pixels(curves.draw_curves({"": (x, y)}, xlabel="x", ylabel="y"))
    columns = np.flatnonzero((picture == (0x00, 0x72, 0xB2)).all(-1).any(0))
    start, length = columns[0], columns[-1] - columns[0]
    gap = (columns > start + 0.36 * length) & (columns < start + 0.64 * length)
    assert not gap.any()
    assert len(columns) > 0.6 * length
