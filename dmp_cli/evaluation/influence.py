"""How much each image moves a score: the score expanded in the distribution of the samples, and its variance by that.

Letters: n images, d features, r of them that samples and reference share, P pairs of images, S subsets of m images.

A score of n images is, up to terms of third order, score + sum_i a(x_i) + sum_{i<j} b(x_i, x_j): each image's own
influence, and what two images add together (Hoeffding's decomposition; von Mises 1947). Influences that are computed
from the same images contain b twice as often as the score does, so the sum of their squares is too large with few
images: by the mean square of b over all pairs, which is taken off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..runtime import randomness
from ..storage import let_go, take
from .distances import Gaussian, draw_subsets, kernel_distance, subset_kernels

PAIRS = 4000  # pairs of images whose common part is looked at
_ROWS = 4096  # images whose features are float64 at a time
_FLOOR = 0.25  # the least part of the plain variance that is kept; were all of it of second order, half would be right


@dataclass(frozen=True)
class Influence:
    """The expansion of one score of one folder.

    Two folders of equally many images have the same pairs, so the difference of their scores has the difference of
    these as its expansion, whether or not image k of both comes from the same noise.
    """

    first: np.ndarray  # (n,), the influence of each image; their sum is zero
    second: np.ndarray  # (P,), what pairs add, scaled so that the mean square is what ``first`` counts too much
    bias: float | None = None  # fid: how much of the score is due to the number of images


def variance_of(influence: Influence) -> float:
    """The variance of a score over which images were drawn, with the reference fixed."""
    n = len(influence.first)
    plain = float((influence.first**2).sum()) * n / (n - 1)
    return max(plain - float((influence.second**2).mean()), _FLOOR * plain)


def variance_of_difference(one: Influence, other: Influence) -> float:
    """The variance of the difference of two scores; in pairs of images where there are equally many of both."""
    if len(one.first) == len(other.first):
        return variance_of(Influence(one.first - other.first, one.second - other.second))
    return variance_of(one) + variance_of(other)


def interval_around(difference: float, one: Influence, other: Influence) -> tuple[float, float]:
    """The 95 % interval of a difference, with Student's t for as many images as the smaller folder has."""
    from scipy.stats import t

    degrees = min(len(one.first), len(other.first)) - 1
    reach = float(t.ppf(0.975, df=degrees)) * math.sqrt(variance_of_difference(one, other))
    return difference - reach, difference + reach


def expand_mean(values: np.ndarray) -> Influence:
    """The expansion of the mean of ``values`` (n,), which ends with the first order."""
    return Influence((values - values.mean()) / len(values), np.zeros(1))


# a(x) = (2 (mu - m).z + |z|^2 - sum_k s_k t_k^2) / n,  z = x - mu, R_1^T R_2 = P diag(s) Q^T, t = Q^T R_2^T z / s
# bias = (E b(x, x) / 2 + tr S - sum_k s_k) / n, as S is divided by n - 1
def expand_frechet(features: np.ndarray, gaussian: Gaussian, *, reference: Gaussian) -> Influence:
    """The expansion of the Frechet distance of ``features`` (n, d), whose Gaussian is ``gaussian``.

    The t are the features along the axes that samples and reference share, with variance 1. Where a covariance is
    singular there are fewer axes, and the others add nothing.
    """
    n, shift = len(features), gaussian.mean - reference.mean
    cross = gaussian.root.T @ reference.root
    squares, vectors = np.linalg.eigh(cross.T @ cross)  # faster than singular values, and here half the digits do
    kept = squares > squares.max(initial=0.0) * len(squares) * np.finfo(np.float64).eps
    s = np.sqrt(squares[kept])  # (r,)
    axes = reference.root @ (vectors[:, kept] / s)  # (d, r)
    first = np.empty(n)
    for start in range(0, n, _ROWS):
        z = features[start : start + _ROWS].astype(np.float64) - gaussian.mean
        let_go(features)
        first[start : start + _ROWS] = 2 * z @ shift + (z**2).sum(1) - (z @ axes) ** 2 @ s
    one, other = ((take(features, rows).astype(np.float64) - gaussian.mean) @ axes for rows in _draw_pairs(n))  # (P, r)
    alone = float(_frechet_pairs(one, one, s).mean()) / 2
    bias = (alone + float(np.trace(gaussian.covariance) - s.sum())) / n
    second = _frechet_pairs(one, other, s) / (math.sqrt(2) * n)
    return Influence((first - first.mean()) / n, second, bias)


# b(x, y) n^2 = 2 sum_k s_k t_k u_k + sum_kl (t_k t_l - d_kl) (u_k u_l - d_kl) s_k s_l / (s_k + s_l)
def _frechet_pairs(t: np.ndarray, u: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The second derivative of the Frechet distance by the weights of two images, for each pair of rows (P,)."""
    both = t * u
    weights = s[:, None] * s / (s[:, None] + s)  # (r, r)
    return 2 * both @ s + ((both @ weights) * both).sum(1) - (t**2 + u**2) @ (s / 2) + s.sum() / 2


# a(x_i) = sum_{subsets with i} 2 / (S m) (mean_{j != i} k(x_i, x_j) - mean_j k(x_i, y_j)), less its mean
def expand_kernel_distance(
    features: np.ndarray, *, reference: np.ndarray, subsets: int, subset_size: int, seed: int
) -> tuple[np.ndarray, Influence]:
    """The kernel distances over the subsets of :func:`kernel_distances`, (S,), and the expansion of their mean.

    The subsets are part of the score, so an image that none of them has drawn has no influence.
    """
    m, first = subset_size, np.zeros(len(features))
    values = np.empty(subsets)
    second = np.zeros(1)
    chosen = draw_subsets(len(features), subsets=subsets, size=m, seed=seed)  # (S, m)
    for index, (within, against, across) in enumerate(subset_kernels(features, chosen, reference=reference, seed=seed)):
        values[index] = kernel_distance(within, against, across, weights=np.ones((1, m)))[0]
        own = 2 / (subsets * m) * (within.sum(1) / (m - 1) - across.mean(1))
        first[chosen[index]] += own - own.mean()
        if index == 0 and m > 3:
            second = _centre(within)[_draw_pairs(m)]
    common = _count_common(chosen, len(features))
    weight = (common * (common - 1)).sum() / (subsets * m * (m - 1)) ** 2
    return values, Influence(first, math.sqrt(2 * weight) * second)


def _count_common(chosen: np.ndarray, n: int) -> np.ndarray:
    """How many of n images two of the subsets ``chosen`` (S, m) share, (S, S)."""
    common, is_drawn = np.empty((len(chosen), len(chosen))), np.zeros(n, bool)
    for subset, rows in enumerate(chosen):
        is_drawn[rows] = True
        common[subset] = is_drawn[chosen].sum(1)
        is_drawn[rows] = False
    return common


def _centre(kernel: np.ndarray) -> np.ndarray:
    """``kernel`` (m, m), whose diagonal is 0, less the means of its rows and columns; unbiased as in Szekely 2014."""
    m = len(kernel)
    rows = kernel.sum(1) / (m - 2)
    centred = kernel - rows[:, None] - rows + kernel.sum() / ((m - 1) * (m - 2))
    return centred * math.sqrt((m - 1) / (m - 3))


def _draw_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of different images, the same for every folder of n images, (P,) and (P,)."""
    draw = randomness.generator("pairs", seed=0, index=n)
    one = draw.integers(0, n, PAIRS)
    return one, (one + draw.integers(1, n, PAIRS)) % n
