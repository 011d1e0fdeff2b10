"""The expansion of scores against numerical derivatives and loops, and whether its intervals mean what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration import Setting, draw_pairs, main, measure
from dmp_cli.evaluation.distances import Gaussian, fit_gaussian, frechet_distance, kernel_distances
from dmp_cli.evaluation.influence import (
    Influence,
    _draw_pairs,
    expand_frechet,
    expand_kernel_distance,
    expand_mean,
    interval_around,
    variance_of,
    variance_of_difference,
)
from dmp_cli.evaluation.statistics import Provenance, Statistics, save_statistics


def cloud(n: int, d: int, *, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.7, size=(n, d)) + shift


def slow_frechet(x: np.ndarray, weights: np.ndarray, reference: Gaussian) -> float:
    """The distance of the weighted distribution of ``x``; the roots of the eigenvalues that are not zero are added."""
    mean = weights @ x
    covariance = (x - mean).T @ np.diag(weights) @ (x - mean)
    values = np.sort(np.linalg.eigvals(covariance @ reference.covariance).real)[::-1]
    cross = np.sqrt(values[: min(len(x) - 1, x.shape[1])]).sum()
    shift = mean - reference.mean
    return float(shift @ shift + np.trace(covariance) + np.trace(reference.covariance) - 2 * cross)


def along(score: Callable[[np.ndarray], float], n: int, *images: int, step: float) -> float:
    """The derivative of ``score`` of the weights when that of each of ``images`` grows, by central differences."""
    even = np.full(n, 1 / n)
    total = 0.0
    for signs in np.ndindex(*(2,) * len(images)):
        moved, sign = even.copy(), 1
        for image, up in zip(images, signs, strict=True):
            moved += (1 if up else -1) * step * (np.eye(n)[image] - even)
            sign *= 1 if up else -1
        total += sign * score(moved)
    return total / (2 * step) ** len(images)


@pytest.mark.parametrize("n", [14, 5], ids=["more images than features", "singular"])
def test_the_expansion_of_the_frechet_distance_has_its_derivatives(n: int) -> None:
    d = 6
    x, reference = cloud(n, d, seed=0, shift=0.3), fit_gaussian(cloud(40, d, seed=1))
    mean = x.mean(0)
    own = Gaussian(mean, (x - mean).T @ (x - mean) / n)  # of the weights 1/n, without n - 1
    found = expand_frechet(x, own, reference=reference)

    def score(weights: np.ndarray) -> float:
        return slow_frechet(x, weights, reference)

    assert score(np.full(n, 1 / n)) == pytest.approx(frechet_distance(own, reference=reference), rel=1e-9)
    slopes = [along(score, n, i, step=1e-4) for i in range(n)]
    np.testing.assert_allclose(found.first * n, slopes, rtol=1e-5, atol=1e-5)
    assert abs(found.first.sum()) < 1e-12
    pairs = list(zip(*(rows[:12] for rows in _draw_pairs(n)), strict=True))
    assert all(i != j for i, j in zip(*_draw_pairs(n), strict=True))
    bends = [along(score, n, i, j, step=1e-3) for i, j in pairs]
    np.testing.assert_allclose(found.second[:12] * n * math.sqrt(2), bends, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solid", ["samples", "reference"])
def test_images_that_are_all_the_same_share_no_axes(solid: str) -> None:
    x, y = cloud(9, 3, seed=0), cloud(9, 3, seed=1)
    x, y = (np.tile(x[:1], (9, 1)), y) if solid == "samples" else (x, np.tile(y[:1], (9, 1)))
    own, reference = fit_gaussian(x), fit_gaussian(y)
    found = expand_frechet(x, own, reference=reference)
    z = x - x.mean(0)
    by_hand = 2 * z @ (own.mean - reference.mean) + (z**2).sum(1)
    np.testing.assert_allclose(found.first * 9, by_hand - by_hand.mean(), atol=1e-9)
    assert np.isfinite(variance_of(found))


def test_what_the_number_of_images_adds_to_the_frechet_distance() -> None:
    pool, reference = cloud(40_000, 4, seed=0), fit_gaussian(cloud(300, 4, seed=1, shift=0.5))
    whole = frechet_distance(fit_gaussian(pool), reference=reference)
    rows = np.random.default_rng(2).permutation(len(pool)).reshape(-1, 200)
    scores, told = [], []
    for chosen in rows:
        own = fit_gaussian(pool[chosen])
        scores.append(frechet_distance(own, reference=reference))
        told.append(expand_frechet(pool[chosen], own, reference=reference).bias)
    error = np.std(scores) / math.sqrt(len(rows))
    assert abs(np.mean(scores) - whole - np.mean(told)) < 3 * error
    assert np.mean(told) > 5 * error


def test_the_influence_on_the_kernel_distance_is_its_derivative() -> None:
    x, y = cloud(12, 3, seed=0), cloud(15, 3, seed=1)
    drawn = {"reference": y, "subsets": 4, "subset_size": 8, "seed": 5}
    values, found = expand_kernel_distance(x, **drawn)
    np.testing.assert_allclose(values, kernel_distances(x, counts=np.ones((1, 12)), **drawn)[0], rtol=1e-12)
    moved = np.concatenate([np.ones((12, 12)) + sign * 1e-4 * np.eye(12) for sign in (1, -1)])
    up, down = kernel_distances(x, counts=moved, **drawn).mean(1).reshape(2, 12)
    np.testing.assert_allclose(found.first, (up - down) / 2e-4, rtol=1e-6, atol=1e-7)


def test_what_pairs_add_to_the_kernel_distance() -> None:
    x, y = cloud(9, 3, seed=0), cloud(15, 3, seed=1)
    # one subset, of all images: each pair has the weight 1 / (n (n - 1)), twice
    _, found = expand_kernel_distance(x, reference=y, subsets=1, subset_size=9, seed=0)
    kernel = np.array([[0.0 if i == j else (a @ b / 3 + 1) ** 3 for j, b in enumerate(x)] for i, a in enumerate(x)])
    squares = []
    mean = kernel.sum() / (9 * 8)
    for i in range(9):
        for j in range(9):
            if i != j:
                squares.append((kernel[i, j] - kernel[i].sum() / 7 - kernel[j].sum() / 7 + mean * 9 / 7) ** 2)
    expected = 2 / (9 * 8) * np.mean(squares) * 8 / 6
    assert (found.second**2).mean() == pytest.approx(expected, rel=0.1)  # random pairs of these
    # in disjoint subsets no pair has a weight twice: twice as many subsets, half of the weight
    _, several = expand_kernel_distance(np.tile(x, (60, 1)), reference=y, subsets=2, subset_size=9, seed=0)
    assert (several.second**2).mean() < (found.second**2).mean()


def test_a_mean_has_the_variance_of_a_mean() -> None:
    flags = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    assert variance_of(expand_mean(flags)) == pytest.approx(flags.var(ddof=1) / 5)
    others = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    paired = variance_of_difference(expand_mean(flags), expand_mean(others))
    assert paired == pytest.approx((flags - others).var(ddof=1) / 5)
    few = expand_mean(np.array([1.0, 0.0, 0.0]))
    assert variance_of_difference(expand_mean(flags), few) == pytest.approx(0.3 / 5 + 1 / 9)
    low, high = interval_around(0.5, expand_mean(flags), few)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - 0.5 == pytest.approx(4.302653 * math.sqrt(0.3 / 5 + 1 / 9), rel=1e-6)  # two degrees of freedom


def test_the_second_order_is_taken_off_but_never_most_of_the_variance() -> None:
    first = np.array([-1.0, 0.0, 1.0])  # plain variance 3
    assert variance_of(Influence(first, np.array([1.0, -1.0]))) == pytest.approx(2)
    assert variance_of(Influence(first, np.array([9.0]))) == pytest.approx(0.75)
    same = Influence(first, np.array([1.0]))
    assert variance_of_difference(same, same) == 0


def mixture(n: int, *, seed: int) -> np.ndarray:
    """Five Gaussian clouds in 48 dimensions, each with axes of its own."""
    rng = np.random.default_rng(0)
    centres, axes = 2 * rng.normal(size=(5, 48)), rng.normal(size=(5, 48, 48)) / 4
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 5, n)
    return centres[which] + np.einsum("nij,nj->ni", axes[which], rng.normal(size=(n, 48)))


def test_the_calibration_reads_what_eval_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = cloud(60, 3, seed=0).astype(np.float32)
    save_statistics(tmp_path / "pool.npz", Statistics(fit_gaussian(x), x, Provenance(count=60)))
    np.save(tmp_path / "real.npy", cloud(40, 3, seed=1))
    main([str(tmp_path / "pool.npz"), str(tmp_path / "real.npy"), "--counts", "10,20", "--pairs", "3"])
    rows = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines()[2:]]
    wanted = [["10", "fid", "3"], ["10", "kid", "3"], ["20", "fid", "3"], ["20", "kid", "3"]]
    assert [[cell.strip() for cell in row] for row in rows] == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "shared"), [(100, False), (300, True)], ids=["100, drawn apart", "300, from the same noise"]
)
def test_one_model_against_itself_is_told_apart_in_one_case_of_twenty(n: int, shared: bool) -> None:
    reference, count = mixture(1000, seed=1) + 0.4, 300
    setting = Setting(reference, fit_gaussian(reference), subsets=4, subset_size=60)
    pairs = list(draw_pairs(mixture(20_000, seed=2), n, count=count, seed=0))
    if shared:  # image k of both is the same image, changed a little, each in its own way
        rng = np.random.default_rng(3)
        pairs = [tuple(x + 0.5 * rng.normal(size=x.shape) for _ in range(2)) for x, _ in pairs]
    chance = 100 * math.sqrt(0.05 * 0.95 / count)
    for name, share in measure(iter(pairs), setting).items():
        assert abs(share.percent[0] - 5) < 3 * chance, (name, share.percent)
        assert 0.85 < share.width < 1.15, (name, share.width)
