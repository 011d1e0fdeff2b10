"""Spreads of scores: from shared resamples, from parts of the images, and as intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dmp_cli.errors import MetricError
from dmp_cli.evaluation.distances import fit_gaussian, frechet_distance, resampling_counts
from dmp_cli.evaluation.influence import expand_frechet, interval_around, variance_of, variance_of_difference
from dmp_cli.evaluation.results import render_scores, score_table
from dmp_cli.evaluation.scoring import evaluate
from dmp_cli.evaluation.spreads import interval_of

from .conftest import config_for, pixel_features

torch.set_num_threads(1)


def test_a_folder_that_equals_the_base_differs_by_exactly_nothing(folders: dict[str, Path]) -> None:
    config = config_for([folders["near"], folders["copy"]], folders["reference"], metrics=("fid", "kid"), bootstrap=5)
    for score in evaluate(config).rows[1].scores.values():
        assert (score.difference, score.difference_spread) == (0.0, 0.0)
        assert score.spread is not None
        assert score.spread > 0


def test_spreads_are_standard_deviations_over_shared_resamples(folders: dict[str, Path]) -> None:
    config = config_for([folders["near"], folders["far"]], folders["reference"], bootstrap=6, seed=3)
    reference, counts = fit_gaussian(pixel_features(60, seed=0)), resampling_counts(40, resamples=6, seed=3)
    by_hand = np.array(
        [
            [frechet_distance(fit_gaussian(np.repeat(f, c, axis=0)), reference=reference) for c in counts]
            for f in (pixel_features(40, seed=1), pixel_features(40, seed=2, low=128))
        ]
    )
    near, far = (row.scores["fid"] for row in evaluate(config).rows)
    assert near.spread == pytest.approx(by_hand[0].std(ddof=1), rel=1e-8)
    assert far.spread == pytest.approx(by_hand[1].std(ddof=1), rel=1e-8)
    assert far.difference_spread == pytest.approx((by_hand[1] - by_hand[0]).std(ddof=1), rel=1e-8)


def test_repeats_score_parts_of_consecutive_images(folders: dict[str, Path]) -> None:
    config = config_for([folders["near"], folders["far"]], folders["reference"], repeats=3)
    reference = fit_gaussian(pixel_features(60, seed=0))
    by_hand = np.array(
        [
            [frechet_distance(fit_gaussian(f[k : k + 13]), reference=reference) for k in (0, 13, 26)]
            for f in (pixel_features(40, seed=1), pixel_features(40, seed=2, low=128))
        ]
    )
    found = evaluate(config)
    near, far = (row.scores["fid"] for row in found.rows)
    assert near.value == pytest.approx(by_hand[0].mean(), rel=1e-9)
    assert near.spread == pytest.approx(by_hand[0].std(ddof=1) / 3**0.5, rel=1e-8)
    gap = by_hand[1] - by_hand[0]
    assert far.difference == pytest.approx(gap.mean(), rel=1e-9)
    reach = 4.302653 * gap.std(ddof=1) / 3**0.5  # Student's t, two degrees of freedom, 97.5 %
    assert far.interval == pytest.approx((gap.mean() - reach, gap.mean() + reach), rel=1e-5)
    assert any("the last 1 images are in none of the 3 parts" in warning for warning in found.warnings)
    assert [row[1] for row in score_table(found)[1]] == ["3\u00a0×\u00a013", "3\u00a0×\u00a013"]
    assert "mean over 3 parts" in render_scores(found)


def test_more_repeats_than_pairs_of_images_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(MetricError, match="--repeats 21 needs at least 42 images, but there are only 40"):
        evaluate(config_for([folders["near"]], folders["reference"], repeats=21))


def test_the_same_call_gives_the_same_bytes_and_another_seed_does_not(folders: dict[str, Path]) -> None:
    def text(seed: int) -> str:
        config = config_for([folders["near"]], folders["reference"], metrics=("fid", "kid"), bootstrap=3, seed=seed)
        return json.dumps(evaluate(config).to_json()["rows"])

    assert text(0) == text(0)
    assert text(0) != text(1)


def test_the_interval_by_hand() -> None:
    # four resamples around a difference of 2: Student's t has three degrees of freedom
    differences = np.array([2.0, 1.0, 3.0, 1.0, 3.0])
    spread = np.sqrt(4 / 3)
    assert interval_of(differences) == pytest.approx((2 - 3.18245 * spread, 2 + 3.18245 * spread), rel=1e-5)
    assert interval_of(np.array([2.0, 1.0])) is None


def test_without_an_option_spreads_come_from_the_influence_of_each_image(folders: dict[str, Path]) -> None:
    sets = [folders["near"], folders["far"], folders["few"]]
    found = evaluate(config_for(sets, folders["reference"], bootstrap=None))
    reference = fit_gaussian(pixel_features(60, seed=0))
    features = [pixel_features(40, seed=1), pixel_features(40, seed=2, low=128), pixel_features(15, seed=3)]
    parts = [expand_frechet(rows, fit_gaussian(rows), reference=reference) for rows in features]
    near, far, few = (row.scores["fid"] for row in found.rows)
    for score, influence in zip((near, far, few), parts, strict=True):
        assert score.spread == pytest.approx(variance_of(influence) ** 0.5, rel=1e-6)
    paired, apart = (variance_of_difference(other, parts[0]) ** 0.5 for other in parts[1:])
    assert far.difference_spread == pytest.approx(paired, rel=1e-6)
    assert few.difference_spread == pytest.approx(apart, rel=1e-6)
    assert apart**2 == pytest.approx(variance_of(parts[0]) + variance_of(parts[2]))  # of 40 and 15 images
    assert far.difference is not None
    assert far.interval == pytest.approx(interval_around(far.difference, parts[1], parts[0]), rel=1e-6)
    assert found.to_json()["bootstrap"] is None
    assert "computed from how much each image moves the score" in render_scores(found)


def test_a_copy_of_the_base_differs_by_nothing_without_an_option_too(folders: dict[str, Path]) -> None:
    sets = [folders["near"], folders["copy"]]
    config = config_for(sets, folders["reference"], metrics=("fid", "kid", "prc"), bootstrap=None)
    scores = evaluate(config).rows[1].scores
    for name in ("fid", "kid", "precision"):
        assert (scores[name].difference, scores[name].difference_spread) == (0.0, 0.0)
        assert scores[name].excludes_zero is False
        assert scores[name].spread
    assert scores["recall"].interval is None
