"""How much memory and disk a scoring takes, from numbers of images and features alone; nothing is computed.

What is counted are the arrays that are alive at once, in each step of scoring, as the steps make them.

Letters: n images, d features, m images in a subset, c images in a block, P pairs of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import EvalConfig
from .distances import CHUNK
from .influence import PAIRS
from .kept_features import rows_per_file
from .metrics import BLOCK, SPLITS
from .spreads import RESAMPLES

_DOUBLE, _FLOAT, _SMALL = 8, 4, 2  # bytes of a float64 or int64, a float32, and a count of a resample
_MOMENTS = 4  # matrices (d, d) that stay: covariance and root of reference and samples


@dataclass(frozen=True)
class ScoringNeed:
    """Bytes of main memory. The feature network, the images in it and the lists of files are not in it."""

    moments: int  # means, covariances and their roots: they depend on the number of features alone
    images: int  # what is known of every image
    at_work: int  # the most that one step holds beside them: blocks of features, matrices, kernels

    @property
    def peak(self) -> int:
        """The most at one moment."""
        return self.moments + self.images + self.at_work


def count_scoring(
    config: EvalConfig, *, width: int, samples: Sequence[int], reference: int, classes: int = 0
) -> ScoringNeed:
    """What scores of folders with so many ``samples`` take, against so many images of a reference.

    ``config`` has the metrics that are computed; ``width``: features of an image; ``classes``: logits of an image, for
    the Inception score.
    """
    metrics, most, base = {*config.metrics}, max(samples), samples[0]
    expands = config.bootstrap is None and not config.repeats
    asked = RESAMPLES if config.bootstrap is None else config.bootstrap
    resamples = 0 if config.repeats or asked < 2 else asked
    parts = [_measured(max(most, reference), config.batch_size) * width, _fitted(min(most, CHUNK), width)]
    if "fid" in metrics:
        part = min(most // max(config.repeats, 1), CHUNK)  # of repeats, each is a part of the images
        parts.append((_expanded if expands else _resampled)(part, width))
    if "kid" in metrics:
        size = min(config.kid_subset_size, most, reference)
        parts.append(_kernels(size, width, subsets=config.kid_subsets, rows=1 if expands else 1 + resamples))
    if "is" in metrics:
        parts.append(_logits(most, classes))
    if "prc" in metrics:
        parts.append(_neighbours(max(most, reference)))
    known = (
        expands * len(metrics - {"is"}) * _DOUBLE * (most + base + 2 * PAIRS)
    )  # influences, of the base and of the folder at hand
    known += 4 * _DOUBLE * max(most, reference)  # a permutation or a resample, and what it is made of
    held = [count for count in (most, reference) if rows_per_file(count, batch_size=config.batch_size) >= count]
    known += sum(_FLOAT * count * width for count in held)  # features of few images are in no file
    return ScoringNeed(_MOMENTS * _DOUBLE * width * (width + 1), known, max(parts))


def _measured(count: int, batch_size: int) -> int:
    """Numbers of bytes a feature while one file of them is made: its batches, all of it, its bytes, and the file's."""
    return 4 * _FLOAT * min(count, rows_per_file(count, batch_size=batch_size))


def _fitted(block: int, width: int) -> int:
    """A block, centred and weighted; the covariance, and what is added to it. Its root takes four matrices."""
    return max(_DOUBLE * (3 * block * width + 2 * width**2), _DOUBLE * 4 * width**2)


def _resampled(block: int, width: int) -> int:
    """Moments of a resample, or of a part, while those of the one before are there, from rows that are picked."""
    return _DOUBLE * 2 * width**2 + _fitted(block, width) + _FLOAT * block * width


def _expanded(block: int, width: int) -> int:
    """The axes that both sets share, then blocks along them, then the features of pairs and what these add."""
    axes, blocks = _DOUBLE * 6 * width**2, _DOUBLE * (3 * width**2 + 3 * block * width)
    pairs = _DOUBLE * (6 * width**2 + block * width + 6 * PAIRS * width)
    return max(axes, blocks, pairs)


def _kernels(size: int, width: int, *, subsets: int, rows: int) -> int:
    """The kernels of two subsets, of the ones before, and what they are made of; which images are in each subset."""
    drawn = subsets * size * (2 * _DOUBLE + 2 * _SMALL * rows)
    return drawn + _DOUBLE * 8 * size**2 + (4 * _DOUBLE + 2 * _FLOAT) * size * width


def _neighbours(count: int) -> int:
    """Distances of a block to all images, and a sorted copy of them with its places, as torch finds the third."""
    return (2 * _FLOAT + _DOUBLE) * min(BLOCK, count) * count


def _logits(count: int, classes: int) -> int:
    """Logits; of a tenth of them those that are drawn, softmaxes and divergences in float64; a resample's images."""
    part = -(-count // SPLITS)
    return classes * (count * _FLOAT + part * (_FLOAT + 5 * _DOUBLE)) + 3 * _DOUBLE * count


def statistics_bytes(count: int, width: int) -> int:
    """The size of saved statistics: features (n, d) in float32, mean (d,) and covariance (d, d) in float64."""
    return _FLOAT * count * width + _DOUBLE * width * (width + 1)
