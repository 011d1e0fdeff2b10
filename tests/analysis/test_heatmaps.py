"""Heatmaps of gate weights: their sizes, and that each part shows the right weights at the right place."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

from dmp_cli.analysis import heatmaps as figures
from dmp_cli.errors import PatchError
from tests.report.pictures import pixels

DPI = 200
PANEL = (0.55, 1.52, 1.8, 2.2)  # left, top, width, height of the first heatmap, in inches
NEXT = 2.75  # inches from one block to the next, with maps


def panel(picture, *, block=0):
    """The heatmap of a block in the first row, two pixels inside its edges."""
    left, top, width, height = (round(DPI * inches) for inches in PANEL)
    left += round(DPI * NEXT * block)
    return picture[top + 2 : top + height - 2, left + 2 : left + width - 2]


def peaked(*, num_timesteps=20, num_blocks=3, side=4):
    """Random weights, (T, L, N)."""
    return np.random.default_rng(0).dirichlet([0.4] * side**2, size=(num_timesteps, num_blocks))


def draw(weights, timesteps=None, **options):
    timesteps = np.arange(len(weights)) if timesteps is None else timesteps
    return pixels(figures.draw_gates(weights, timesteps, title="Gate", **options))


@pytest.mark.parametrize(("num_blocks", "columns", "rows"), [(3, 3, 1), (12, 3, 4)])
def test_gates_fill_a_sheet_of_known_size(num_blocks, columns, rows):
    picture = draw(peaked(num_blocks=num_blocks), grid=(4, 4))
    expected = (round(DPI * (1.52 + 2.62 * rows + 0.05)), round(DPI * (0.55 + 2.75 * columns)))
    assert picture.shape[:2] == pytest.approx(expected, abs=1)
    assert len(np.unique(panel(picture).reshape(-1, 3), axis=0)) > 20


def test_brighter_is_stronger_and_high_noise_is_at_the_top():
    # the first half of the prompts at low timesteps, the second at high ones
    weights = np.zeros((10, 1, 4))
    weights[:5, 0, :2], weights[5:, 0, 2:] = 0.5, 0.5
    heat = panel(draw(weights)).sum(-1)
    (top_left, top_right), (bottom_left, bottom_right) = (
        [part.mean() for part in np.array_split(half, 2, axis=1)] for half in np.array_split(heat, 2)
    )
    assert min(top_right, bottom_left) > 5 * max(top_left, bottom_right, 1)


def test_timesteps_may_come_in_any_order():
    weights, order = peaked(), np.random.default_rng(1).permutation(20)
    drawn = figures.draw_gates(weights, np.arange(20), title="Gate", grid=(4, 4))
    assert figures.draw_gates(weights[order], order, title="Gate", grid=(4, 4)) == drawn


def test_a_constant_gate_is_flat():
    weights = np.full((20, 2, 16), 1 / 16)
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = draw(weights, grid=(4, 4))
        figures.draw_block(weights, np.arange(20), block=1, title="Gate")
    colours = np.unique(np.concatenate([panel(picture, block=b).reshape(-1, 3) for b in (0, 1)]), axis=0)
    assert len(colours) == 1
    assert 60 < colours.mean() < 200  # uniform is the middle of the scale


def test_all_blocks_share_one_scale():
    weights = np.full((20, 2, 16), 1 / 16)
    weights[:10, 1] = np.eye(16)[3]
    picture = draw(weights, grid=(4, 4))
    uniform, half_peaked = panel(picture, block=0), panel(picture, block=1)
    # the upper half of block 1 has the higher timesteps, which are uniform
    np.testing.assert_array_equal(uniform[:200], half_peaked[:200])
    assert half_peaked[-100:].sum(-1).max() > uniform.sum(-1).max() + 100


def test_the_maps_show_the_prompts_in_their_places():
    weights = np.zeros((5, 1, 16))
    weights[:, 0, 7] = 1  # row 1, column 3 of a 4 x 4 grid
    picture = draw(weights, grid=(4, 4))
    side = (2.2 - 4 * 0.044) / 5
    for place in range(5):
        left, top = DPI * (0.55 + 1.8 + 0.06 * 2.2), DPI * (1.52 + place * (side + 0.044))
        cell = DPI * side / 4
        middle = [
            [picture[int(top + cell * (r + 0.5)), int(left + cell * (c + 0.5))].sum() for c in range(4)]
            for r in range(4)
        ]
        assert np.argmax(middle) == 7
        assert np.sort(np.ravel(middle))[-2] < 30


def test_without_a_grid_there_are_no_maps():
    picture = draw(peaked(num_blocks=1), grid=None)
    assert (picture[round(DPI * 1.52) :, round(DPI * 2.6) :] == 255).all()


def test_one_timestep_one_block_and_one_prompt_draw():
    for shape in ((1, 1, 16), (5, 1, 1)):
        assert len(np.unique(panel(draw(np.ones(shape))).reshape(-1, 3), axis=0)) == 1


def test_one_block_in_large():
    weights = peaked()
    png = figures.draw_block(weights, np.arange(20), block=2, title="Gate", grid=(4, 4))
    assert pixels(png).shape[:2] == (round(DPI * 6.22), round(DPI * 7.85))
    other = figures.draw_block(weights, np.arange(20), block=0, title="Gate", grid=(4, 4))
    assert png != other


def test_titles_are_text_not_formulas():
    figures.draw_gates(peaked(), np.arange(20), title=r"runs/$\frac{$.safetensors")


def test_a_diverged_gate_is_refused():
    with pytest.raises(PatchError, match="block 0"):
        draw(np.full((2, 1, 4), np.nan))


def test_drawing_leaves_global_state_alone_and_importing_is_cheap():
    program = """
import sys, numpy
import dmp_cli.analysis.heatmaps, dmp_cli.analysis.gate_weights, dmp_cli.report.html
heavy = {"matplotlib", "PIL", "jinja2", "torch"} & set(sys.modules)
assert not heavy, heavy
dmp_cli.analysis.heatmaps.draw_gates(numpy.ones((2, 1, 4)), numpy.arange(2), title="t")
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
