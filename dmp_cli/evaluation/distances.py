"""How far two sets of feature vectors are apart: Frechet and kernel distances, plain and resampled, in float64.

Letters: n images, d features, R rows of resampling counts, S subsets of m images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..runtime import randomness

_ROWS = 4096  # rows turned into float64 at a time


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and covariance (d, d) of feature vectors, float64; the covariance is divided by n - 1."""

    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def root(self) -> np.ndarray:
        """R (d, r) with R R^T = covariance and r its numerical rank."""
        values, vectors = np.linalg.eigh(self.covariance)
        # What rounding leaves of a zero eigenvalue would come back as its square root, eight digits larger.
        kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
        return vectors[:, kept] * np.sqrt(values[kept])  # (d, r)


def fit_gaussian(features: np.ndarray, *, counts: np.ndarray | None = None) -> Gaussian:
    """The Gaussian of ``features`` (n, d), each row taken ``counts`` (n,) times; None: once each."""
    if counts is not None:
        drawn = np.flatnonzero(counts)
        features, counts = features[drawn], counts[drawn]
    weights = np.ones(len(features)) if counts is None else counts.astype(np.float64)  # (n,)
    total, width = weights.sum(), features.shape[1]
    mean, covariance = np.zeros(width), np.zeros((width, width))
    for start in range(0, len(features), _ROWS):
        mean += weights[start : start + _ROWS] @ features[start : start + _ROWS].astype(np.float64)
    mean /= total
    for start in range(0, len(features), _ROWS):
        centred = features[start : start + _ROWS].astype(np.float64) - mean
        covariance += (centred * weights[start : start + _ROWS, None]).T @ centred
    return Gaussian(mean, covariance / (total - 1))


# d^2 = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^1/2
def frechet_distance(samples: Gaussian, *, reference: Gaussian) -> float:
    """Squared Frechet distance of two Gaussians (Heusel et al. 2017, Eq. 6): FID, in Inception features.

    With S = R R^T, tr (S_1 S_2)^1/2 is the sum of the singular values of R_1^T R_2. That stays exact where the
    covariances are singular; the eigenvalues of S_1 S_2 lose half their digits there.
    """
    shift = samples.mean - reference.mean
    cross = np.linalg.svd(samples.root.T @ reference.root, compute_uv=False).sum()
    return float(shift @ shift + np.trace(samples.covariance) + np.trace(reference.covariance) - 2 * cross)


def kernel_distances(
    features: np.ndarray, *, reference: np.ndarray, counts: np.ndarray, subsets: int, subset_size: int, seed: int
) -> np.ndarray:
    """Kernel distance (KID) of ``subsets`` random subsets, (R, S); its mean over S is the score.

    Args:
        features, reference: (n, d) and (n_ref, d), any float type.
        counts: (R, n), how often each image is taken; a row of ones gives the plain score.
        subset_size: m, drawn without replacement from either side; at most n and n_ref.

    Binkowski et al. 2018, Section 4, with clean-fid's kernel. A subset in which ``counts`` leaves no pair gives NaN.
    """
    distances = np.empty((len(counts), subsets))
    for subset in range(subsets):
        chosen = _subset("kid-samples", len(features), subset_size, seed=seed, subset=subset)
        against = _subset("kid-reference", len(reference), subset_size, seed=seed, subset=subset)
        x, y = features[chosen].astype(np.float64), reference[against].astype(np.float64)  # (m, d)
        distances[:, subset] = _unbiased_mmd(x, y, weights=counts[:, chosen].astype(np.float64))
    return distances


def _subset(purpose: str, n: int, size: int, *, seed: int, subset: int) -> np.ndarray:
    return randomness.permutation(purpose, n, seed=seed, step=subset)[:size]


# k(x, y) = (x.y / d + 1)^3
def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3  # (m, m)


# MMD^2 = sum_{i != j} w_i w_j k(x_i, x_j) / sum_{i != j} w_i w_j + mean_{i != j} k(y_i, y_j) - 2 mean_w k(x_i, y_j)
def _unbiased_mmd(x: np.ndarray, y: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """Unbiased squared mean discrepancy per row of ``weights`` (R, m), (R,)."""
    size = len(y)
    within, against = _kernel(x, x), _kernel(y, y)
    np.fill_diagonal(within, 0.0)
    np.fill_diagonal(against, 0.0)
    total = weights.sum(1)  # (R,)
    pairs = total**2 - (weights**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = ((weights @ within) * weights).sum(1) / pairs
        across = weights @ _kernel(x, y).mean(1) / total
    return inside + against.sum() / (size * (size - 1)) - 2 * across


def resampling_counts(n: int, *, resamples: int, seed: int) -> np.ndarray:
    """How often each of n images is drawn in each bootstrap resample, (resamples, n), int64.

    A function of (seed, n) alone: folders of equal size are resampled alike, image k of one with image k of the other,
    so that differences between them are paired.
    """
    even = np.full(n, 1 / n)
    draws = [
        randomness.generator("bootstrap", seed=seed, step=step, index=n).multinomial(n, even)
        for step in range(resamples)
    ]
    return np.array(draws, np.int64).reshape(resamples, n)
