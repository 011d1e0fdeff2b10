"""A colour bar of its own: dark at the low end, light at the high one."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_cli.report.scale import draw_scale

from .pictures import pixels


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (4.7e-9, 0.55), (0.3, 0.3)])
def test_the_bar_runs_from_dark_to_light(low: float, high: float) -> None:
    picture = pixels(draw_scale(low, high, what="gate weight"))
    assert picture.shape == (150, 800, 3)
    bar = picture[round(200 * 0.37), 62:738].sum(-1)  # its middle, without its ends
    assert (np.diff(bar) >= 0).all()
    assert bar[0] < 30
    assert bar[-1] > 735
