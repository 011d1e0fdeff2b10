"""Inception score, precision and recall against slow formulas; which way is better; what each needs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dmp_cli.config import EvalConfig
from dmp_cli.errors import ConfigError, MetricError
from dmp_cli.evaluation.distances import fit_gaussian, resampling_counts
from dmp_cli.evaluation.features import Extractor
from dmp_cli.evaluation.influence import variance_of
from dmp_cli.evaluation.metrics import Setting, check, compute, title_of
from dmp_cli.evaluation.statistics import Provenance, Statistics

WEIGHT = np.random.default_rng(9).normal(size=(3, 4)).astype(np.float32)


def statistics_of(features: np.ndarray) -> Statistics:
    return Statistics(fit_gaussian(features), features, Provenance(count=len(features)))


def cloud(count: int, *, seed: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 4)) + shift).astype(np.float32)


def setting(**options: Any) -> Setting:
    config = EvalConfig(samples=("a",), reference="b", **options)
    return Setting(
        config, Extractor("named", 4, "0", lambda image: image, lambda x: x, classify=lambda f: f @ WEIGHT.T)
    )


def scores_of(
    metric: str, samples: np.ndarray, reference: np.ndarray, counts: np.ndarray | None = None, **options: Any
) -> Any:
    rows = np.ones((1, len(samples)), np.int64) if counts is None else counts
    return compute(metric, statistics_of(samples), statistics_of(reference), rows, setting(**options))


def ball(points: np.ndarray) -> list[float]:
    """The distance of every point to its third neighbour, itself not counted."""
    found = []
    for i, point in enumerate(points):
        others = sorted(math.dist(point, other) for j, other in enumerate(points) if j != i)
        found.append(others[2])
    return found


def share_inside(points: np.ndarray, manifold: np.ndarray) -> float:
    radii = ball(manifold)
    inside = [any(math.dist(p, q) <= r for q, r in zip(manifold, radii, strict=True)) for p in points]
    return sum(inside) / len(inside)


def test_precision_and_recall_by_hand() -> None:
    samples, reference = cloud(40, seed=0, shift=0.8), cloud(30, seed=1)
    found = scores_of("prc", samples, reference)
    precision, recall = share_inside(samples, reference), share_inside(reference, samples)
    assert found["precision"].values == pytest.approx([precision], abs=1e-6)
    assert found["recall"].values == pytest.approx([recall], abs=1e-6)
    assert 0 < precision < 1
    assert 0 < recall < 1
    assert precision != recall


def test_precision_alone_has_a_spread() -> None:
    samples, reference = cloud(40, seed=0, shift=0.8), cloud(30, seed=1)
    counts = np.concatenate([np.ones((1, 40), np.int64), resampling_counts(40, resamples=3, seed=0)])
    found = scores_of("prc", samples, reference, counts, bootstrap=3)
    by_hand = [share_inside(np.repeat(samples, row, axis=0), reference) for row in counts]
    assert found["precision"].values == pytest.approx(by_hand, abs=1e-6)
    assert found["recall"].values.shape == (1,)
    assert found["recall"].influence is found["precision"].influence is None
    share = by_hand[0]
    expanded = scores_of("prc", samples, reference)
    assert variance_of(expanded["precision"].influence) == pytest.approx(share * (1 - share) / 39)
    assert expanded["recall"].influence is None


def test_the_inception_score_by_hand() -> None:
    samples = cloud(40, seed=0)
    logits = (samples @ WEIGHT.T).astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.random.RandomState(2020).permutation(40)
    scores = []
    for part in np.split(chances[order], 10):
        scores.append(math.exp(np.mean([sum(p * np.log(p / part.mean(0))) for p in part])))
    assert scores_of("is", samples, samples)["is"].values == pytest.approx([np.mean(scores)], rel=1e-6)
    assert np.mean(scores) > 1.01
    library = pytest.importorskip("torch_fidelity.metric_isc").isc_features_to_metric
    whole = library(torch.from_numpy(samples @ WEIGHT.T))
    assert scores_of("is", samples, samples)["is"].values[0] == whole["inception_score_mean"]
    counts = np.concatenate([np.ones((1, 40), np.int64), resampling_counts(40, resamples=2, seed=0)])
    found = scores_of("is", samples, samples, counts)["is"].values
    by_hand = [scores_of("is", np.repeat(samples, row, axis=0), samples)["is"].values[0] for row in counts]
    assert found == pytest.approx(by_hand, rel=1e-9)
    assert len(set(found)) == 3


def test_what_is_too_little_is_refused() -> None:
    with pytest.raises(MetricError, match="needs at least 10 images, but there are 9"):
        scores_of("is", cloud(9, seed=0), cloud(9, seed=0))
    with pytest.raises(MetricError, match="more than 3 images"):
        scores_of("prc", cloud(9, seed=0), cloud(3, seed=0))
    with pytest.raises(MetricError, match="features pixels have none"):
        check("is", Extractor("pixels", None, "pixels", lambda image: image, lambda x: x))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch_fidelity.metric_isc", None)
    with pytest.raises(ConfigError, match="need torch-fidelity"):
        check("prc", setting().extractor)


@pytest.mark.parametrize(
    ("score", "features", "title"),
    [
        ("fid", "inception", "FID"),
        ("fid", "clip", "CLIP-FID"),
        ("kid", "clip", "CLIP-KID"),
        ("fid", "dinov2", "FD-DINOv2"),
        ("kid", "pixels", "KD (pixels)"),
        ("is", "inception", "IS"),
        ("recall", "inception", "Recall"),
    ],
)
def test_titles_are_those_of_papers(score: str, features: str, title: str) -> None:
    assert title_of(score, features) == title
