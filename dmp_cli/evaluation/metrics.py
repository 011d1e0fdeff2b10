"""Metrics on sets of features: FID, KID, Inception score, precision and recall, each with its resamples.

Letters: n images, d features, R = 1 + resamples. Row 0 of ``counts`` counts every image once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..config import EvalConfig
from ..errors import ConfigError, MetricError
from ..runtime import tracking
from .distances import fit_gaussian, frechet_distance, kernel_distances
from .features import Extractor
from .influence import Influence, expand_frechet, expand_kernel_distance, expand_mean
from .statistics import Statistics

Counts = np.ndarray | Sequence[np.ndarray]  # R rows (n,)

HIGHER_IS_BETTER = frozenset({"is", "precision", "recall"})
_TITLES = {  # of FID and KID
    "clip": ("CLIP-FID", "CLIP-KID"),
    "dinov2": ("FD-DINOv2", "KD-DINOv2"),
    "digits": ("FD (digits)", "KD (digits)"),
    "pixels": ("FD (pixels)", "KD (pixels)"),
}
_INCEPTION_FILE = "inception-2015-12-05.pt"  # the network of FID, given as a file
SPLITS, _SHUFFLED = 10, 2020  # parts that the Inception score averages over; torch-fidelity's seed of the shuffle
_NEIGHBOURS = 3  # k of precision and recall
BLOCK = 2000  # images whose distances to all others are in memory at a time


@dataclass(frozen=True)
class Replicates:
    """One score: the score itself, then its value in each resample."""

    values: np.ndarray  # (R,); (1,) for a score that cannot be resampled
    subset_size: int | None = None  # kid: images in a subset
    subset_std: float | None = None  # kid: standard deviation over the subsets
    influence: Influence | None = None  # where the spread comes from the influence of each image


@dataclass(frozen=True)
class Setting:
    """What every metric needs besides the features."""

    config: EvalConfig
    extractor: Extractor

    @property
    def expands(self) -> bool:
        """Whether spreads come from the influence of each image: neither resamples nor parts were asked for."""
        return self.config.bootstrap is None and not self.config.repeats


def needs_features(metric: str) -> bool:
    """Whether a metric needs the features of the reference, not only their mean and covariance."""
    return metric in ("kid", "prc")


def title_of(score: str, features: str) -> str:
    """The name that papers use for a score in these features: FID, CLIP-FID, FD-DINOv2, IS, Precision.

    The distances in the features of a TorchScript file are no FID: they are called by the file, such as FD-resnet.
    """
    if score in ("fid", "kid"):
        stem = features.rpartition(".")[0] if features != _INCEPTION_FILE else ""
        own = (f"FD-{stem}", f"KD-{stem}") if stem else ("FID", "KID")
        return _TITLES.get(features, own)[score == "kid"]
    return "IS" if score == "is" else score.capitalize()


def compute(
    metric: str, samples: Statistics, reference: Statistics, counts: Counts, setting: Setting
) -> dict[str, Replicates]:
    """Compute the scores of ``metric``, by name. ``counts``, R rows (n,), say how often each sample counts.

    Raises:
        ConfigError: ``is`` or ``prc`` is asked for and torch-fidelity is not installed.
        MetricError: the features have no classes, or there are fewer images than the metric needs.
    """
    return _METRICS[metric](samples, reference, counts, setting)


def check(metric: str, extractor: Extractor) -> None:
    """Check a metric before anything is measured. Raises the errors of :func:`compute` that can be known by then."""
    if metric in ("is", "prc"):
        _fidelity()
    if metric == "is" and extractor.classify is None:
        raise MetricError(f"the Inception score needs a network with classes, but features {extractor.name} have none")


def features_of(statistics: Statistics) -> np.ndarray:
    """The features (n, d) of samples. Samples always have them; a reference may not."""
    assert statistics.features is not None
    return statistics.features


def _resamples(counts: Counts) -> Iterator[np.ndarray]:
    """The rows behind the first, one at a time."""
    return (counts[number] for number in range(1, len(counts)))


def _fid(samples: Statistics, reference: Statistics, counts: Counts, setting: Setting) -> dict[str, Replicates]:
    values = [frechet_distance(samples.gaussian, reference=reference.gaussian)]
    if setting.expands:
        features = features_of(samples)
        influence = expand_frechet(features, samples.gaussian, reference=reference.gaussian)
        return {"fid": Replicates(np.array(values), influence=influence)}
    with tracking("resample", len(counts) - 1) as advance:
        for done, row in enumerate(_resamples(counts), start=1):
            drawn = fit_gaussian(features_of(samples), counts=row)
            values.append(frechet_distance(drawn, reference=reference.gaussian))
            advance(done, "")
    return {"fid": Replicates(np.array(values))}


def _kid(samples: Statistics, reference: Statistics, counts: Counts, setting: Setting) -> dict[str, Replicates]:
    features, against, config = features_of(samples), features_of(reference), setting.config
    size = min(config.kid_subset_size, len(features), len(against))
    drawn: dict[str, Any] = {"subsets": config.kid_subsets, "subset_size": size, "seed": config.seed}
    influence = None
    if setting.expands:
        values, influence = expand_kernel_distance(features, reference=against, **drawn)
        per_subset = values[None]  # (1, S)
    else:
        per_subset = kernel_distances(features, reference=against, counts=counts, **drawn)  # (R, S)
    std = float(per_subset[0].std(ddof=1)) if config.kid_subsets > 1 else None
    return {"kid": Replicates(per_subset.mean(1), size, std, influence)}


def _inception_score(
    samples: Statistics, reference: Statistics, counts: Counts, setting: Setting
) -> dict[str, Replicates]:
    """Salimans et al. 2016: exp of the mean KL(p(y|x) || p(y)), averaged over ten parts of the shuffled images."""
    features, classify = features_of(samples), setting.extractor.classify
    assert classify is not None
    if len(features) < SPLITS:
        raise MetricError(f"the Inception score needs at least {SPLITS} images, but there are {len(features)}")
    logits = torch.from_numpy(classify(features))  # (n, classes)
    drawn = (np.repeat(np.arange(len(row)), row) for row in counts)
    return {"is": Replicates(np.array([_score_of_parts(logits, rows) for rows in drawn]))}


def _score_of_parts(logits: torch.Tensor, rows: np.ndarray) -> float:
    """The library's score of ``rows`` of ``logits``, part by part: at once it holds some 30 bytes a class and image.

    The parts are its own, as it shuffles by such a generator.
    """
    score, count = _fidelity()[0], len(rows)
    rows = rows[np.random.RandomState(_SHUFFLED).permutation(count)]
    parts = [rows[i * count // SPLITS : (i + 1) * count // SPLITS] for i in range(SPLITS)]
    found = [score(logits[torch.from_numpy(part)], splits=1, shuffle=False) for part in parts]
    return float(np.mean([one["inception_score_mean"] for one in found]))


def _precision_recall(
    samples: Statistics, reference: Statistics, counts: Counts, setting: Setting
) -> dict[str, Replicates]:
    """Kynkaanniemi et al. 2019, with three neighbours.

    Only precision has a spread, as a mean over the samples. Recall uses the manifold of the samples, where an image
    drawn twice would be its own neighbour.
    """
    features, against = (torch.from_numpy(features_of(one)) for one in (samples, reference))
    if min(len(features), len(against)) <= _NEIGHBOURS:
        raise MetricError(
            f"precision and recall need more than {_NEIGHBOURS} images in the samples and in the reference"
        )
    score, options = _fidelity()[1], {"prc_neighborhood": _NEIGHBOURS, "prc_batch_size": BLOCK}
    found = score(features, against, save_cpu_ram=True, verbose=False, **options)
    precision, influence = [found["precision"]], None
    if setting.expands or len(counts) > 1:
        inside = _inside(features, against).numpy()
        influence = expand_mean(inside.astype(np.float64)) if setting.expands else None
        precision += [] if setting.expands else [float(row @ inside) / row.sum() for row in _resamples(counts)]
    return {
        "precision": Replicates(np.array(precision), influence=influence),
        "recall": Replicates(np.array([found["recall"]])),
    }


def _inside(features: torch.Tensor, manifold: torch.Tensor) -> torch.Tensor:
    """Whether each of ``features`` (n, d) is as near to some row of ``manifold`` as its third neighbour is; (n,)."""
    radii = torch.cat([_distances(rows, manifold).kthvalue(_NEIGHBOURS + 1).values for rows in manifold.split(BLOCK)])
    return torch.cat([(_distances(rows, manifold) <= radii).any(dim=1) for rows in features.split(BLOCK)])


def _distances(rows: torch.Tensor, manifold: torch.Tensor) -> torch.Tensor:
    """Distances (b, m) in blocks of as many columns as the library's, which round alike."""
    return torch.cat([torch.cdist(rows, columns) for columns in manifold.split(BLOCK)], dim=1)


def _fidelity() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        from torch_fidelity.metric_isc import isc_features_to_metric
        from torch_fidelity.metric_prc import prc_features_to_metric
    except ImportError as error:
        raise ConfigError(
            "Inception score, precision and recall need torch-fidelity", hint="pip install 'dmp-cli[metrics]'"
        ) from error
    return isc_features_to_metric, prc_features_to_metric


_METRICS: dict[str, Callable[[Statistics, Statistics, Counts, Setting], dict[str, Replicates]]] = {
    "fid": _fid,
    "kid": _kid,
    "is": _inception_score,
    "prc": _precision_recall,
}
