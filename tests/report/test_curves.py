"""Curves: each has its own colour, and single points and gaps are visible."""

import numpy as np
import pytest
from matplotlib.axes import Axes

from dmp_cli.report import curves

from .pictures import pixels


def test_curves_have_their_own_colours():
    steps = np.arange(100)
    series = {"base": (steps, np.ones(100)), "DMP $^$": (steps, 1 / (1 + steps)), "broken": (steps, steps * np.nan)}
    picture = pixels(curves.draw_curves(series, xlabel="step", ylabel="loss", title="Loss"))
    assert picture.shape == (620, 960, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (picture == colour).all(-1).sum() > 500


def test_of_many_curves_the_lowest_and_the_highest_are_named(monkeypatch):
    written = []
    text = Axes.text
    monkeypatch.setattr(Axes, "text", lambda self, *a, **k: (written.append((k["y"], k["s"])), text(self, *a, **k))[1])
    ends = [(37 * i) % 100 for i in range(100)]
    series = {f"arm{end}": ([0, 1], [50, end]) for end in ends} | {"broken": ([0, 1], [np.nan, np.nan])}
    picture = pixels(curves.draw_curves(series, xlabel="step", ylabel="loss"))
    assert [name for _, name in written] == [
        *("arm0", "arm1", "arm2", "arm3", "arm4", "arm5", "89 more"),
        *("arm94", "arm95", "arm96", "arm97", "arm98", "arm99"),
    ]
    places = np.array([place for place, _ in written])
    assert np.diff(places).min() > 0.059  # none lies over another, and none outside
    assert 0 <= places.min() < places.max() < 1.05
    assert (picture == 0xCC).all(-1).sum() > 500
    left, right = (picture[:, side] < 250 for side in (slice(0, 1), slice(-1, None)))
    assert not left.any()
    assert not right.any()


def test_names_stay_apart_and_inside():
    """Thirteen that end at the top stand below it, in their order."""
    assert curves._apart([0.0, 0.5]) == [0.0, 0.5]
    assert curves._apart([0.5, 0.5]) == pytest.approx([0.5, 0.56])
    crowded = curves._apart([0.95] * 13)
    assert crowded == pytest.approx([1.04 - 0.06 * i for i in range(12, -1, -1)])


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
