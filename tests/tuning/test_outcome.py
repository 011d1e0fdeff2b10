"""The gain and its interval against slow formulas and made-up losses; a search in which there is nothing to gain."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy.stats import t

from dmp_cli.errors import ConfigError
from dmp_cli.tuning.journal import COMPLETE, FAILED, Trial
from dmp_cli.tuning.outcome import best_of, gain_of, gain_of_scores


def test_the_interval_over_seeds_and_images_against_a_slow_formula() -> None:
    rng = np.random.default_rng(0)
    images = np.array([0, 1, 2, 0, 1, 2, 0])  # N = 7 draws of n = 3 images
    defaults, winner = rng.random((2, 4, 7))
    found = gain_of(defaults, winner, images)
    gains = [[defaults[k][i] - winner[k][i] for i in range(7)] for k in range(4)]
    mean = sum(map(sum, gains)) / 28
    per_seed = [sum(row) / 7 for row in gains]
    per_draw = [sum(gains[k][i] for k in range(4)) / 4 for i in range(7)]
    shares = [sum(per_draw[i] - mean for i in range(7) if images[i] == image) / 7 for image in range(3)]
    seeds, over_images = statistics.variance(per_seed) / 4, 3 / 2 * sum(share**2 for share in shares)
    freedom = (seeds + over_images) ** 2 / (seeds**2 / 3 + over_images**2 / 2)
    reach = t.ppf(0.975, freedom) * math.sqrt(seeds + over_images)
    assert found.mean == pytest.approx(mean)
    assert found.seeds == pytest.approx(per_seed)
    assert found.interval == pytest.approx((mean - reach, mean + reach))
    assert found.over == "seeds and images"
    alone = gain_of(defaults[:1], winner[:1], images)
    assert alone.over == "images"


def test_where_nothing_is_gained_few_intervals_exclude_zero() -> None:
    """Gains that differ by seed, by image and by draw, around zero: the interval is rather too wide."""
    rng = np.random.default_rng(1)
    images = np.repeat(np.arange(30), 2)
    excluded = 0
    for _ in range(400):
        gains = rng.normal(size=(3, 1)) * 0.3 + rng.normal(size=30)[images] + rng.normal(size=(3, 60))
        excluded += bool(gain_of(gains, np.zeros((3, 60)), images).excludes_zero)
    assert excluded / 400 < 0.06


def test_the_interval_of_scores() -> None:
    found = gain_of_scores([3.0, 4.0], [1.0, 3.0], 1, None)
    assert found.mean == 1.5
    reach = t.ppf(0.975, 1) * statistics.stdev([2.0, 1.0]) / math.sqrt(2)
    assert found.interval == pytest.approx((1.5 - reach, 1.5 + reach))
    higher = gain_of_scores([3.0], [5.0], -1, (1.0, 3.0))  # where higher is better
    assert (higher.mean, higher.interval, higher.over) == (2.0, (1.0, 3.0), "the images that were drawn")
    lower = gain_of_scores([3.0], [1.0], 1, (-3.0, -1.0))
    assert (lower.mean, lower.interval) == (2.0, (1.0, 3.0))
    assert gain_of_scores([3.0], [1.0], 1, None).interval is None


def test_the_best_trial() -> None:
    done = [Trial(0, {}, COMPLETE, 2.0), Trial(1, {}, FAILED), Trial(2, {}, COMPLETE, 1.0), Trial(3, {}, COMPLETE, 1.0)]
    assert best_of(done).number == 2
    with pytest.raises(ConfigError, match="trial 0, which has the defaults, failed: not finite"):
        best_of([Trial(0, {}, FAILED, reason="not finite"), *done[1:]])
