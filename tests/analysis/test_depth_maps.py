"""Depth maps: one map per panel, whatever the order of the timesteps, with the noisiest timestep on top."""

import numpy as np

from dmp_cli.analysis.depth_maps import draw_depth_maps
from tests.report.pictures import pixels

DPI = 200
MAP = (0.65, 0.75, 2.3, 2.6)  # left, top, width and height of the first map, in inches


def test_timesteps_may_come_in_any_order() -> None:
    values, order = np.random.default_rng(0).random((20, 3)), np.random.default_rng(1).permutation(20)
    drawn = draw_depth_maps({"entropy": values}, np.arange(20), title="Use")
    assert draw_depth_maps({"entropy": values[order]}, order, title="Use") == drawn


def test_the_noisiest_timestep_is_on_top() -> None:
    values = np.zeros((2, 2))
    values[1] = 1  # the later timestep
    picture = pixels(draw_depth_maps({"ratio": values}, np.array([0, 999]), title="Added"))
    left, top, width, height = (round(DPI * inches) for inches in MAP)
    heat = picture[top : top + height, left : left + width].sum(-1)
    upper, lower = np.array_split(heat, 2)
    assert upper.mean() > 2 * lower.mean()


def test_panels_stand_side_by_side() -> None:
    values, timesteps = np.random.default_rng(0).random((5, 4)), np.arange(5)
    one, three = (
        pixels(draw_depth_maps(dict.fromkeys(names, values), timesteps, title="$x")) for names in ("a", "abc")
    )
    assert one.shape[:2] == (780, 1480)
    assert three.shape[:2] == (780, 2340)


def test_with_ends_a_map_is_coloured_by_them_and_not_by_its_own_values() -> None:
    low, high = np.full((4, 2), 0.0), np.full((4, 2), 1.0)
    ends = {"x": (0.0, 1.0)}
    dark, light = (pixels(draw_depth_maps({"x": values}, np.arange(4), title="t", ends=ends)) for values in (low, high))
    middle = (round(DPI * 2.0), round(DPI * 1.5))  # inside the map
    assert light[middle].sum() > dark[middle].sum() + 200
