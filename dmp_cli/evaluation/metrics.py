"""What sets of features are scored by: FID, KID, Inception score, precision and recall, plain and resampled.

Letters: n images, d features, R = 1 + resamples: row 0 of ``counts`` takes every image once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..config import EvalConfig
from ..errors import ConfigError, MetricError
from .distances import fit_gaussian, frechet_distance, kernel_distances
from .features import Extractor
from .statistics import Statistics

HIGHER_IS_BETTER = frozenset({"is", "precision", "recall"})
_FAMILIES = {"clip": ("CLIP-FID", "CLIP-KID"), "dinov2": ("FD-DINOv2", "KD-DINOv2")}
_SPLITS = 10  # of the Inception score
_NEIGHBOURS = 3  # of precision and recall
_ROWS = 2000  # whose distances to all others are held at a time


@dataclass(frozen=True)
class Draws:
    """One score, (R,): as it is, and in each resample; (1,) where resampling says nothing."""

    values: np.ndarray
    subset_size: int | None = None
    subset_std: float | None = None


@dataclass(frozen=True)
class Setting:
    """What every metric is given beside the features."""

    config: EvalConfig
    extractor: Extractor


def needs_features(metric: str) -> bool:
    """Whether a metric needs the reference's features, not only their mean and covariance."""
    return metric in ("kid", "prc")


def title_of(score: str, features: str) -> str:
    """The name of a score in features of that name, as papers write it: FID, CLIP-FID, FD-DINOv2, IS, Precision."""
    if score in ("fid", "kid"):
        return _FAMILIES.get(features, ("FID", "KID"))[score == "kid"]
    return "IS" if score == "is" else score.capitalize()


def compute(
    metric: str, samples: Statistics, reference: Statistics, counts: np.ndarray, setting: Setting
) -> dict[str, Draws]:
    """The scores that ``metric`` gives, by name; ``counts`` (R, n) is how often each sample is taken.

    Raises:
        ConfigError: torch-fidelity is not installed, and ``is`` or ``prc`` asked for.
        MetricError: features without classes, or fewer images than the metric needs.
    """
    return _METRICS[metric](samples, reference, counts, setting)


def check(metric: str, extractor: Extractor) -> None:
    """Raise what :func:`compute` would, before anything is measured."""
    if metric in ("is", "prc"):
        _fidelity()
    if metric == "is" and extractor.classify is None:
        raise MetricError(f"the Inception score needs a network with classes, and features {extractor.name} have none")


def features_of(statistics: Statistics) -> np.ndarray:
    """The features (n, d) of samples, which are always there."""
    assert statistics.features is not None
    return statistics.features


def _fid(samples: Statistics, reference: Statistics, counts: np.ndarray, setting: Setting) -> dict[str, Draws]:
    values = [frechet_distance(samples.gaussian, reference=reference.gaussian)]
    for row in counts[1:]:
        drawn = fit_gaussian(features_of(samples), counts=row)
        values.append(frechet_distance(drawn, reference=reference.gaussian))
    return {"fid": Draws(np.array(values))}


def _kid(samples: Statistics, reference: Statistics, counts: np.ndarray, setting: Setting) -> dict[str, Draws]:
    features, against, config = features_of(samples), features_of(reference), setting.config
    size = min(config.kid_subset_size, len(features), len(against))
    per_subset = kernel_distances(
        features, reference=against, counts=counts, subsets=config.kid_subsets, subset_size=size, seed=config.seed
    )  # (R, S)
    std = float(per_subset[0].std(ddof=1)) if config.kid_subsets > 1 else None
    return {"kid": Draws(per_subset.mean(1), size, std)}


def _inception_score(
    samples: Statistics, reference: Statistics, counts: np.ndarray, setting: Setting
) -> dict[str, Draws]:
    """Salimans et al. 2016: exp of the mean KL of p(y|x) to p(y), over ten parts of the images in a fixed shuffle."""
    features, classify = features_of(samples), setting.extractor.classify
    assert classify is not None
    if len(features) < _SPLITS:
        raise MetricError(f"the Inception score needs {_SPLITS} images at least, and there are {len(features)}")
    logits = torch.from_numpy(classify(features))  # (n, classes)
    score = _fidelity()[0]
    drawn = [torch.from_numpy(np.repeat(np.arange(len(row)), row)) for row in counts]
    return {"is": Draws(np.array([score(logits[rows])["inception_score_mean"] for rows in drawn]))}


def _precision_recall(
    samples: Statistics, reference: Statistics, counts: np.ndarray, setting: Setting
) -> dict[str, Draws]:
    """Kynkaanniemi et al. 2019, with three neighbours.

    Only precision is resampled: an image drawn twice would be its own neighbour in the manifold that recall reads.
    """
    features, against = (torch.from_numpy(features_of(one)) for one in (samples, reference))
    if min(len(features), len(against)) <= _NEIGHBOURS:
        raise MetricError(f"precision and recall need more than {_NEIGHBOURS} images on either side")
    score, options = _fidelity()[1], {"prc_neighborhood": _NEIGHBOURS, "prc_batch_size": _ROWS}
    found = [
        score(features[np.repeat(np.arange(len(row)), row)], against, save_cpu_ram=True, verbose=False, **options)
        for row in counts
    ]
    precision = np.array([one["precision"] for one in found])
    return {"precision": Draws(precision), "recall": Draws(np.array([found[0]["recall"]]))}


def _fidelity() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        from torch_fidelity.metric_isc import isc_features_to_metric
        from torch_fidelity.metric_prc import prc_features_to_metric
    except ImportError as error:
        raise ConfigError(
            "Inception score, precision and recall need torch-fidelity", hint="pip install 'dmp-cli[metrics]'"
        ) from error
    return isc_features_to_metric, prc_features_to_metric


_METRICS: dict[str, Callable[[Statistics, Statistics, np.ndarray, Setting], dict[str, Draws]]] = {
    "fid": _fid,
    "kid": _kid,
    "is": _inception_score,
    "prc": _precision_recall,
}
