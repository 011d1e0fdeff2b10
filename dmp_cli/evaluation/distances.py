"""Distances between two sets of feature vectors: Frechet and kernel distances, with bootstrap counts, in float64.

Letters: n images, d features, R rows of bootstrap counts, S subsets of m images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..runtime import randomness
from ..storage import let_go, take

CHUNK = 4096  # rows converted to float64 at a time
_LEAST_VALUE = 1e-10  # of an eigenvalue over their sum, for a covariance that is far from singular


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and covariance (d, d) of feature vectors, float64; the covariance is divided by n - 1."""

    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def root(self) -> np.ndarray:
        """A matrix R (d, r) with R R^T = covariance, where r is the numerical rank."""
        # A factor by Cholesky is as exact as one of eigenvectors, in a tenth of the time, where no eigenvalue is near
        # zero. That all are above a bound is what a factor of the covariance below it shows.
        lowered = self.covariance.copy()
        lowered[np.diag_indices_from(lowered)] -= _LEAST_VALUE * np.trace(lowered)
        with contextlib.suppress(np.linalg.LinAlgError):
            np.linalg.cholesky(lowered)
            return np.linalg.cholesky(self.covariance)
        values, vectors = np.linalg.eigh(self.covariance)
        # A zero eigenvalue comes out as a rounding error near 1e-16, whose square root, 1e-8, is too large to keep.
        kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
        return vectors[:, kept] * np.sqrt(values[kept])  # (d, r)


def fit_gaussian(features: np.ndarray, *, counts: np.ndarray | None = None) -> Gaussian:
    """Fit a Gaussian to ``features`` (n, d). Row k counts ``counts[k]`` times; None: every row counts once."""
    total, width = float(len(features) if counts is None else counts.sum()), features.shape[1]
    mean, covariance = np.zeros(width), np.zeros((width, width))
    for rows, weights in _weighted_blocks(features, counts):
        mean += weights @ rows
    mean /= total
    for rows, weights in _weighted_blocks(features, counts):
        centred = rows - mean
        if counts is not None:
            centred *= np.sqrt(weights)[:, None]
        covariance += centred.T @ centred  # of one matrix with itself, which takes half of the operations
    return Gaussian(mean, covariance / (total - 1))


def _weighted_blocks(features: np.ndarray, counts: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows that count, in float64, and how often each does, block by block: features may be larger than memory."""
    drawn = None if counts is None else np.flatnonzero(counts)
    for start in range(0, len(features if drawn is None else drawn), CHUNK):
        chunk: slice | np.ndarray = slice(start, start + CHUNK) if drawn is None else drawn[start : start + CHUNK]
        rows = features[chunk].astype(np.float64)
        let_go(features)
        yield rows, np.ones(len(rows)) if counts is None else counts[chunk].astype(np.float64)


# d^2 = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^1/2
def frechet_distance(samples: Gaussian, *, reference: Gaussian) -> float:
    """Squared Frechet distance of two Gaussians (Heusel et al. 2017, Eq. 6). In Inception features it is the FID.

    With S = R R^T, tr (S_1 S_2)^1/2 is the sum of the singular values of R_1^T R_2. This stays exact for singular
    covariances, where the eigenvalues of S_1 S_2 lose half of their digits.
    """
    shift = samples.mean - reference.mean
    cross = np.linalg.svd(samples.root.T @ reference.root, compute_uv=False).sum()
    return float(shift @ shift + np.trace(samples.covariance) + np.trace(reference.covariance) - 2 * cross)


def kernel_distances(
    features: np.ndarray,
    *,
    reference: np.ndarray,
    counts: np.ndarray | Iterable[np.ndarray],
    subsets: int,
    subset_size: int,
    seed: int,
) -> np.ndarray:
    """Kernel distances (KID) over ``subsets`` random subsets, (R, S). The score is the mean over S.

    Args:
        features, reference: (n, d) and (n_ref, d), any float type.
        counts: R rows (n,), how often each image counts; a row of ones gives the plain score.
        subset_size: m images, drawn without replacement from each of the two sets; at most n and n_ref.

    Source: Binkowski et al. 2018, Section 4, with the kernel of clean-fid. A subset gives NaN where ``counts`` leaves
    no pair of images in it.
    """
    chosen = draw_subsets(len(features), subsets=subsets, size=subset_size, seed=seed)
    weights = np.array([_small(row[chosen]) for row in counts])  # (R, S, m); one row of n counts at a time
    distances = np.empty((len(weights), subsets))
    kernels = subset_kernels(features, chosen, reference=reference, seed=seed)
    for subset, (within, against, across) in enumerate(kernels):
        drawn = weights[:, subset].astype(np.float64)
        distances[:, subset] = kernel_distance(within, against, across, weights=drawn)
    return distances


def _small(counts: np.ndarray) -> np.ndarray:
    """Counts of a resample in two bytes each: 65,536 times the same image is not drawn."""
    return counts.astype(np.uint16) if counts.dtype.kind == "i" else counts


def draw_subsets(n: int, *, subsets: int, size: int, seed: int) -> np.ndarray:
    """The samples that are drawn in each random subset, (S, m), none of them twice in one."""
    return np.array([_subset("kid-samples", n, size, seed=seed, subset=subset) for subset in range(subsets)])


def subset_kernels(
    features: np.ndarray, chosen: np.ndarray, *, reference: np.ndarray, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each subset of ``chosen`` (S, m): kernels (m, m) in it, in that of the reference, and across.

    The diagonals of the first two kernels are 0.
    """
    for subset, rows in enumerate(chosen):
        of_reference = _subset("kid-reference", len(reference), len(rows), seed=seed, subset=subset)
        x, y = take(features, rows).astype(np.float64), take(reference, of_reference).astype(np.float64)  # (m, d)
        within, against = _kernel(x, x), _kernel(y, y)
        np.fill_diagonal(within, 0.0)
        np.fill_diagonal(against, 0.0)
        yield within, against, _kernel(x, y)


def _subset(purpose: str, n: int, size: int, *, seed: int, subset: int) -> np.ndarray:
    order = randomness.permutation(purpose, n, seed=seed, step=subset)
    return order[:size].copy()  # a part of it would keep all of it in memory


# k(x, y) = (x.y / d + 1)^3
def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3  # (m, m)


# MMD^2 = sum_{i != j} w_i w_j k(x_i, x_j) / sum_{i != j} w_i w_j + mean_{i != j} k(y_i, y_j) - 2 mean_w k(x_i, y_j)
def kernel_distance(within: np.ndarray, against: np.ndarray, across: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """Unbiased squared maximum mean discrepancy (R,), one for each row of ``weights`` (R, m)."""
    size = len(against)
    total = weights.sum(1)  # (R,)
    pairs = total**2 - (weights**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = ((weights @ within) * weights).sum(1) / pairs
        outside = weights @ across.mean(1) / total
    return inside + against.sum() / (size * (size - 1)) - 2 * outside


def resampling_counts(n: int, *, resamples: int, seed: int) -> np.ndarray:
    """How often each of n images is drawn in each bootstrap resample, (resamples, n), int64.

    The counts depend on ``seed`` and n only. Two folders of equal size are therefore resampled together: image k of
    one is drawn as often as image k of the other, so the difference of their scores is paired.
    """
    drawn = Resamples(n, resamples=resamples, seed=seed)
    return np.array([drawn[number] for number in range(1, len(drawn))], np.int64).reshape(resamples, n)


class Resamples(Sequence[np.ndarray]):
    """The rows of :func:`resampling_counts` behind a row of ones; each is drawn when it is asked for, (n,) int64."""

    def __init__(self, n: int, *, resamples: int, seed: int) -> None:
        self._n, self._resamples, self._seed = n, resamples, seed

    def __len__(self) -> int:
        return 1 + self._resamples

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)  # ends a loop over the rows
        if number == 0:
            return np.ones(self._n, np.int64)
        draw = randomness.generator("bootstrap", seed=self._seed, step=number - 1, index=self._n)
        return draw.multinomial(self._n, np.full(self._n, 1 / self._n))
