"""The interval of a mean difference over seeds, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_cli.ablation.seeds import KINDS, interval_of_seeds


def test_one_seed_has_the_interval_of_its_images() -> None:
    assert interval_of_seeds([-1.0], [(-1.5, -0.5)]) == (-1.5, -0.5, "images")
    assert interval_of_seeds([-1.0], [None]) is None
    assert set(KINDS) == {"images", "seeds"}


def test_three_seeds_by_hand() -> None:
    """t at 97.5 % with 2 degrees of freedom is 4.302653; s of (-1, -2, -3) is 1."""
    found = interval_of_seeds([-1.0, -2.0, -3.0], [None, None, None])
    assert found is not None
    reach = 4.302653 / 3**0.5
    assert found[:2] == pytest.approx((-2 - reach, -2 + reach), abs=1e-5)
    assert found.kind == "seeds"


def test_seeds_that_agree_by_chance_are_no_narrower_than_the_images() -> None:
    wide = 1.959964 * 0.3  # a standard error of 0.3 each
    found = interval_of_seeds([-1.0, -1.0, -1.0], [(-1 - wide, -1 + wide)] * 3)
    assert found is not None
    assert found.high - found.low == pytest.approx(2 * wide / 3**0.5, rel=1e-5)


@pytest.mark.parametrize(("training", "least"), [(0.0, 0.008), (0.3, 0.025), (3.0, 0.04)])
def test_equal_versions_are_told_apart_in_one_case_in_twenty(training: float, least: float) -> None:
    """Ablations of three seeds with nothing between the versions: training and images vary, or the images alone."""
    source, excluded, rounds = np.random.default_rng(0), 0, 4000
    for _ in range(rounds):
        differences = training * source.standard_normal(3) + 0.3 * source.standard_normal(3)
        within = [(one - 1.96 * 0.3, one + 1.96 * 0.3) for one in differences]
        found = interval_of_seeds(list(differences), within)
        assert found is not None
        excluded += found.low > 0 or found.high < 0
    assert least < excluded / rounds < 0.06
