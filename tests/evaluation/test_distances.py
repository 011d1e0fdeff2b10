"""Frechet and kernel distances against closed forms and slow formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dmp_cli.evaluation.distances import Gaussian, fit_gaussian, frechet_distance, kernel_distances, resampling_counts
from dmp_cli.runtime import randomness


def _features(n: int, d: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.5, size=(n, d)).astype(np.float32)


def test_gaussian_equals_numpy() -> None:
    features = _features(5000, 7)  # more rows than are added up at once
    gaussian = fit_gaussian(features)
    np.testing.assert_allclose(gaussian.mean, features.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(gaussian.covariance, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-10)


def test_counts_are_repeated_rows() -> None:
    features, counts = _features(6, 3), np.array([0, 2, 1, 0, 3, 0])
    repeated, counted = fit_gaussian(np.repeat(features, counts, axis=0)), fit_gaussian(features, counts=counts)
    np.testing.assert_allclose(counted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(counted.covariance, repeated.covariance, rtol=1e-12)


def test_frechet_in_one_dimension() -> None:
    # (1 - 4)^2 + (2 - 5)^2
    a, b = Gaussian(np.array([1.0]), np.array([[4.0]])), Gaussian(np.array([4.0]), np.array([[25.0]]))
    assert frechet_distance(a, reference=b) == pytest.approx(18, rel=1e-12)


def test_frechet_of_diagonal_covariances() -> None:
    a = Gaussian(np.array([0.0, 1.0, 2.0]), np.diag([1.0, 4.0, 9.0]))
    b = Gaussian(np.array([1.0, 1.0, 0.0]), np.diag([16.0, 4.0, 1.0]))
    # |(1, 0, 2)|^2 + (1-4)^2 + (2-2)^2 + (3-1)^2
    assert frechet_distance(a, reference=b) == pytest.approx(5 + 9 + 0 + 4, rel=1e-12)


def test_frechet_of_two_dimensions_that_do_not_commute() -> None:
    # For 2x2 matrices tr sqrt(M) = sqrt(tr M + 2 sqrt(det M))
    s1, s2 = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    product = s1 @ s2
    cross = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    expected = np.trace(s1) + np.trace(s2) - 2 * cross
    zero = np.zeros(2)
    assert frechet_distance(Gaussian(zero, s1), reference=Gaussian(zero, s2)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [500, 20])
def test_frechet_to_itself_is_zero_also_with_fewer_images_than_features(n: int) -> None:
    gaussian = fit_gaussian(_features(n, 64))
    assert abs(frechet_distance(gaussian, reference=fit_gaussian(_features(n, 64)))) < 1e-5
    assert frechet_distance(gaussian, reference=fit_gaussian(_features(n, 64, seed=1))) > 0.1


def test_frechet_with_fewer_images_than_features_keeps_its_digits() -> None:
    # With S = C^T C, C the centred rows over sqrt(n - 1), the cross term is the nuclear norm of the small C_1 C_2^T.
    a, b = _features(20, 64).astype(np.float64), _features(30, 64, seed=1).astype(np.float64)
    c1, c2 = (a - a.mean(0)) / math.sqrt(19), (b - b.mean(0)) / math.sqrt(29)
    cross = np.linalg.svd(c1 @ c2.T, compute_uv=False).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + (c1**2).sum() + (c2**2).sum() - 2 * cross
    assert frechet_distance(fit_gaussian(a), reference=fit_gaussian(b)) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_images_that_are_all_the_same() -> None:
    same = fit_gaussian(np.ones((4, 3), np.float32))
    # Without variance only the means and the other's trace remain.
    other = Gaussian(np.array([1.0, 1.0, 3.0]), np.diag([1.0, 2.0, 3.0]))
    assert frechet_distance(same, reference=other) == pytest.approx(4 + 6, rel=1e-12)


def _slow_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    m = len(x)
    xx = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(p, q) for p in x for q in y) / m**2


def test_kernel_distance_equals_the_double_loop() -> None:
    x, y, size = _features(9, 4), _features(11, 4, seed=1), 6
    fast = kernel_distances(x, reference=y, counts=np.ones((1, 9), np.int64), subsets=3, subset_size=size, seed=5)
    slow = [
        _slow_mmd(
            x[randomness.permutation("kid-samples", 9, seed=5, step=s)[:size]],
            y[randomness.permutation("kid-reference", 11, seed=5, step=s)[:size]],
        )
        for s in range(3)
    ]
    assert len(set(slow)) == 3
    np.testing.assert_allclose(fast, [slow], rtol=1e-10)


def test_kernel_distance_with_counts_leaves_an_image_against_itself_out() -> None:
    x, y, counts = _features(5, 3), _features(5, 3, seed=1), np.array([[0, 2, 1, 0, 2]])
    fast = kernel_distances(x, reference=y, counts=counts, subsets=1, subset_size=5, seed=0)
    drawn = [i for i, count in enumerate(counts[0]) for _ in range(count)]

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a.astype(float) @ b.astype(float)) / 3 + 1) ** 3

    xx = np.mean([kernel(x[i], x[j]) for i in drawn for j in drawn if i != j])
    yy = np.mean([kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    xy = np.mean([kernel(x[i], b) for i in drawn for b in y])
    assert fast[0, 0] == pytest.approx(xx + yy - 2 * xy, rel=1e-10)


def test_kernel_distance_is_unbiased_and_sees_a_difference() -> None:
    ones = np.ones((1, 400), np.int64)
    same = kernel_distances(
        _features(400, 4), reference=_features(400, 4, seed=1), counts=ones, subsets=40, subset_size=50, seed=0
    )
    other = kernel_distances(
        _features(400, 4), reference=_features(400, 4, seed=1) + 1, counts=ones, subsets=40, subset_size=50, seed=0
    )
    assert (same < 0).any()  # a biased estimate is never negative
    assert (same > 0).any()
    assert other.min() > same.max()


def test_resampling_counts() -> None:
    counts = resampling_counts(50, resamples=4, seed=3)
    assert counts.shape == (4, 50)
    assert (counts.sum(1) == 50).all()
    assert len({row.tobytes() for row in counts}) == 4
    np.testing.assert_array_equal(counts, resampling_counts(50, resamples=4, seed=3))
    np.testing.assert_array_equal(counts[:2], resampling_counts(50, resamples=2, seed=3))
    assert not np.array_equal(counts, resampling_counts(50, resamples=4, seed=4))
    assert resampling_counts(50, resamples=0, seed=3).shape == (0, 50)


def test_folders_of_unequal_size_are_resampled_independently() -> None:
    counts, others = (resampling_counts(n, resamples=20, seed=3)[:, :50].ravel() for n in (50, 51))
    assert abs(np.corrcoef(counts, others)[0, 1]) < 0.1


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_the_distance_equals_clean_fid_s_own() -> None:
    try:
        from cleanfid import fid
    except Exception as error:  # a torchvision that does not fit torch breaks this import with a RuntimeError
        pytest.skip(f"clean-fid cannot be imported here: {error}")
    a, b = (fit_gaussian(np.random.default_rng(seed).gamma(0.5, size=(300, 40))) for seed in (0, 1))
    try:
        expected = fid.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    except TypeError as error:  # SciPy 1.18 took away an argument that clean-fid gives
        pytest.skip(f"clean-fid cannot compute here: {error}")
    assert frechet_distance(a, reference=b) == pytest.approx(expected, rel=1e-6)
    x, y = (np.random.default_rng(seed).random((30, 6)) for seed in (0, 1))
    ones = np.ones((1, 30), np.int64)
    kid = kernel_distances(x, reference=y, counts=ones, subsets=1, subset_size=30, seed=0)[0, 0]
    assert kid == pytest.approx(fid.kernel_distance(y, x, num_subsets=1, max_subset_size=30), rel=1e-6)


@pytest.mark.parametrize(("least", "rank"), [(1e-3, 6), (1e-14, 6), (0.0, 5)])
def test_a_root_gives_the_covariance_back_far_from_singular_and_near(least: float, rank: int) -> None:
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    values = np.array([3.0, 2.0, 1.0, 0.5, 0.25, least])
    gaussian = Gaussian(np.zeros(6), (axes * values) @ axes.T)
    assert gaussian.root.shape == (6, rank)
    assert np.array_equal(gaussian.root, np.tril(gaussian.root)) == (least == 1e-3)  # where it is by Cholesky
    np.testing.assert_allclose(gaussian.root @ gaussian.root.T, gaussian.covariance, atol=1e-14)
    other = Gaussian(np.zeros(6), np.eye(6))
    expected = values.sum() + 6 - 2 * np.sqrt(values).sum()
    assert frechet_distance(gaussian, reference=other) == pytest.approx(expected, rel=1e-7 if least == 1e-14 else 1e-12)
