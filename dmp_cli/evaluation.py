"""Scores of folders of samples against a reference: score, spread, and paired difference to the first folder.

Letters: n images, d features, R = 1 + resamples: row 0 is the plain score, the others come from bootstrap resamples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import __version__
from .config import EvalConfig
from .distances import fit_gaussian, frechet_distance, kernel_distances, resampling_counts
from .errors import MetricError
from .features import Extractor, load_extractor
from .measurement import Log, find_samples, measure, read_beside, silent
from .scores import Evaluation, Row, Score
from .statistics import Provenance, Statistics, load_statistics, save_statistics

_SLOW_WIDTH = 512  # above it, one resample of the Frechet distance takes seconds


@dataclass(frozen=True)
class _Draws:
    values: np.ndarray  # (R,)
    subset_size: int | None = None
    subset_std: float | None = None


@dataclass(frozen=True)
class _Scored:
    samples: Path
    provenance: Provenance
    draws: dict[str, _Draws]


def evaluate(config: EvalConfig, *, device: str = "cpu", log: Log = silent) -> Evaluation:
    """Score every folder of ``config.samples`` against ``config.reference``; all is a function of images and config.

    Raises MetricError, and DataError for folders without images, before the first long computation where it can.
    """
    extractor = load_extractor(config.features, inception_weights=config.inception_weights, device=device)
    for path in config.samples:  # a misspelt last folder should not be found out after an hour
        find_samples(path)
        _made(path)
    reference = _reference(config, extractor, log)
    scored = [_score(path, config, extractor, reference, log) for path in config.samples]
    return Evaluation(
        rows=tuple(_row(one, base=scored[0]) for one in scored),
        reference=str(config.reference),
        reference_provenance=reference.provenance,
        features=extractor.name,
        features_digest=extractor.digest,
        features_width=reference.width,
        bootstrap=config.bootstrap,
        seed=config.seed,
        warnings=tuple(dict.fromkeys(_warnings(config, scored, reference))),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"dmp": __version__, "torch": torch.__version__, "clean-fid": version("clean-fid")}


# --- the reference -------------------------------------------------------------------------------------------------


def _reference(config: EvalConfig, extractor: Extractor, log: Log) -> Statistics:
    path = config.reference
    if path.suffix == ".npz":
        if config.save_stats is not None:
            raise MetricError(f"{path}: statistics already, so there is nothing to save at {config.save_stats}")
        reference = load_statistics(path)
        _check_network(reference, extractor, path)
    else:
        log(f"{path}: measuring the reference")
        reference = measure(path, extractor, batch_size=config.batch_size, log=log)
        if config.save_stats is not None:
            save_statistics(config.save_stats, reference)
    if "kid" in config.metrics and reference.features is None:
        raise MetricError(f"{path}: holds no features, and kid needs them", hint="Score fid alone, or give the images.")
    return reference


def _check_network(reference: Statistics, extractor: Extractor, path: Path) -> None:
    known = reference.provenance
    if known.digest not in (None, extractor.digest):
        raise MetricError(
            f"{path}: statistics in features {known.features} ({known.digest}), "
            f"and scores are asked for in {extractor.name} ({extractor.digest})",
            hint="Measure the reference again, or score with its features.",
        )
    if extractor.width is not None:
        _check_width(reference, extractor.width, path=path, of=f"features {extractor.name}")


def _check_width(reference: Statistics, width: int, *, path: Path, of: str) -> None:
    if reference.width != width:
        raise MetricError(f"{path}: statistics of {reference.width} features, and {of} has {width}")


# --- scoring ---------------------------------------------------------------------------------------------------------


def _score(path: Path, config: EvalConfig, extractor: Extractor, reference: Statistics, log: Log) -> _Scored:
    log(f"{path}: measuring")
    samples = measure(path, extractor, batch_size=config.batch_size, log=log)
    _check_width(reference, samples.width, path=config.reference, of=str(path))
    features, resamples = _features(samples), config.bootstrap if config.bootstrap > 1 else 0
    drawn = resampling_counts(len(features), resamples=resamples, seed=config.seed)
    counts = np.concatenate([np.ones((1, len(features)), np.int64), drawn])  # (R, n)
    if resamples and samples.width > _SLOW_WIDTH:
        log(f"{path}: {resamples} resamples for the spread")
    draws: dict[str, _Draws] = {
        metric: _METRICS[metric](samples, reference, counts, config) for metric in dict.fromkeys(config.metrics)
    }
    return _Scored(path, samples.provenance, draws)


def _features(statistics: Statistics) -> np.ndarray:
    assert statistics.features is not None
    return statistics.features


def _fid(samples: Statistics, reference: Statistics, counts: np.ndarray, config: EvalConfig) -> _Draws:
    values = [frechet_distance(samples.gaussian, reference=reference.gaussian)]
    for row in counts[1:]:
        drawn = fit_gaussian(_features(samples), counts=row)
        values.append(frechet_distance(drawn, reference=reference.gaussian))
    return _Draws(np.array(values))


def _kid(samples: Statistics, reference: Statistics, counts: np.ndarray, config: EvalConfig) -> _Draws:
    features, against = _features(samples), _features(reference)
    size = min(config.kid_subset_size, len(features), len(against))
    per_subset = kernel_distances(
        features, reference=against, counts=counts, subsets=config.kid_subsets, subset_size=size, seed=config.seed
    )  # (R, S)
    std = float(per_subset[0].std(ddof=1)) if config.kid_subsets > 1 else None
    return _Draws(per_subset.mean(1), size, std)


_METRICS: dict[str, Callable[[Statistics, Statistics, np.ndarray, EvalConfig], _Draws]] = {"fid": _fid, "kid": _kid}


def _row(scored: _Scored, *, base: _Scored) -> Row:
    scores = {}
    for metric, draws in scored.draws.items():
        differences = None if scored is base else draws.values - base.draws[metric].values  # (R,)
        scores[metric] = Score(
            value=float(draws.values[0]),
            spread=_spread(draws.values),
            difference=None if differences is None else float(differences[0]),
            difference_spread=None if differences is None else _spread(differences),
            interval=None if differences is None else _interval(differences),
            subset_size=draws.subset_size,
            subset_std=draws.subset_std,
        )
    count = scored.provenance.count
    assert count is not None
    return Row(
        samples=str(scored.samples),
        count=count,
        provenance=scored.provenance,
        scores=scores,
        made=_made(scored.samples),
    )


def _spread(values: np.ndarray) -> float | None:
    resampled = values[1:]
    if len(resampled) < 2 or not np.isfinite(resampled).all():  # not finite: kid subsets of two or three images
        return None
    return float(resampled.std(ddof=1))


def _interval(differences: np.ndarray) -> tuple[float, float] | None:
    """difference -+ t * standard error, with Student's t for the few resamples that the error was told from."""
    from scipy.stats import t

    spread = _spread(differences)
    if spread is None:
        return None
    reach = float(t.ppf(0.975, df=len(differences) - 2)) * spread
    return float(differences[0]) - reach, float(differences[0]) + reach


def _made(path: Path) -> dict[str, Any] | None:
    data = read_beside(path, "samples.json")
    if data is None:
        return None
    try:
        made = json.loads(data)
    except ValueError as error:
        raise MetricError(f"{path}/samples.json: no JSON", hint="Remove it, or sample again.") from error
    return made if isinstance(made, dict) else {"content": made}


# --- warnings --------------------------------------------------------------------------------------------------------


def _warnings(config: EvalConfig, scored: list[_Scored], reference: Statistics) -> Iterator[str]:
    yield from _reference_warnings(config, reference)
    if config.bootstrap == 1:
        yield "one resample has no spread; give --bootstrap 0 or at least 2"
    if len({one.provenance.count for one in scored}) > 1 and "fid" in config.metrics:
        yield "the folders hold different numbers of images, and FID falls with more: compare equal numbers only"
    for one in scored:
        yield from _row_warnings(config, one, reference)


def _reference_warnings(config: EvalConfig, reference: Statistics) -> Iterator[str]:
    if reference.provenance.digest is None:
        yield (
            f"{config.reference} does not say how it was made (provenance unknown: network, resizing, count); "
            "its scores compare only with others against the same file"
        )
    elif "fid" in config.metrics:
        yield from _too_few(config.reference, reference.count, reference.width)


def _row_warnings(config: EvalConfig, scored: _Scored, reference: Statistics) -> Iterator[str]:
    if "fid" in config.metrics:
        yield from _too_few(scored.samples, scored.provenance.count, reference.width)
    size = scored.draws["kid"].subset_size if "kid" in scored.draws else None
    if size is not None and size < config.kid_subset_size:
        yield f"{scored.samples}: KID over subsets of {size} images, not {config.kid_subset_size}: there are no more"
    sizes, wanted = scored.provenance.image_sizes, reference.provenance.image_sizes
    if wanted and not set(sizes) & set(wanted):
        yield f"{scored.samples}: no image has the size in pixels of any reference image"


def _too_few(path: Path, count: int | None, width: int) -> Iterator[str]:
    if count is not None and count <= width:
        yield f"{path}: {count} images for {width} features: the covariance is singular and FID biased"
