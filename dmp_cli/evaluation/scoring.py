"""Scores of folders of samples against a reference: score, spread, and paired difference to the first folder.

Letters: n images, d features, R = 1 + draws: row 0 is the score, the others come from bootstrap resamples, or from
parts of the images, whose mean it then is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import EvalConfig
from ..errors import DataError, MetricError
from ..sampling import SampleFolder, read_record
from ..version import __version__
from .distances import fit_gaussian, resampling_counts
from .extract import Log, find_samples, measure, read_beside, silent
from .features import load_extractor
from .metrics import Draws, Setting, check, compute, features_of
from .reference import check_record, check_width, find_reference
from .results import Evaluation, Row, Score
from .statistics import Provenance, Statistics

_SHOWN = 3  # damaged images named in an error
_SLOW_WIDTH = 512  # above it, one resample of the Frechet distance takes seconds


@dataclass(frozen=True)
class _Scored:
    samples: Path
    provenance: Provenance
    draws: dict[str, Draws]
    made: dict[str, Any] | None  # its samples.json


def evaluate(config: EvalConfig, *, device: str = "cpu", log: Log = silent) -> Evaluation:
    """Score every folder of ``config.samples`` against ``config.reference``; all is a function of images and config.

    Raises MetricError, and DataError for folders without images, before the first long computation where it can.
    """
    given = {"inception_weights": config.inception_weights, "feature_weights": config.feature_weights}
    extractor = load_extractor(config.features, **given, device=device)
    for metric in config.metrics:
        check(metric, extractor)
    records: list[dict[str, Any] | None] = []
    for path in config.samples:  # a misspelt last folder should not be found out after an hour
        find_samples(path)
        records.append(_made(path))
        _check_whole(path, read_record(records[-1]).num_images)
    reference = find_reference(config, extractor, log)
    for path, made in zip(config.samples, records, strict=True):
        check_record(config, reference.provenance, path, made)
    scored = [
        _score(path, made, Setting(config, extractor), reference, log)
        for path, made in zip(config.samples, records, strict=True)
    ]
    return Evaluation(
        rows=tuple(_row(one, base=scored[0], repeats=config.repeats) for one in scored),
        reference=str(config.reference),
        reference_provenance=reference.provenance,
        features=extractor.name,
        features_digest=extractor.digest,
        features_width=reference.width,
        bootstrap=config.bootstrap,
        repeats=config.repeats,
        seed=config.seed,
        warnings=tuple(dict.fromkeys(_warnings(config, scored, reference))),
        versions=_versions(config),
    )


def _check_whole(path: Path, count: int | None) -> None:
    """Raise MetricError where a folder of ``dmp sample`` is not as it was written: cut short, changed, or added to."""
    folder = SampleFolder(path)
    if count is None or not path.is_dir() or not folder.sums():
        return
    try:
        wrong = folder.verify(count)
    except DataError as error:
        raise MetricError(error.message, hint=error.hint) from error
    if wrong:
        raise MetricError(
            f"{len(wrong)} images of {path} are not as they were drawn: {'; '.join(wrong[:_SHOWN])}",
            hint="Run its dmp sample again, which draws what is missing; or score a copy without samples.json.",
        )


def _versions(config: EvalConfig) -> dict[str, str]:
    from importlib.metadata import version

    used = ["clean-fid"]
    if {"is", "prc"} & set(config.metrics):
        used.append("torch-fidelity")
    if config.features in ("clip", "dinov2"):
        used.append("transformers")
    return {"dmp": __version__, "torch": torch.__version__, **{name: version(name) for name in used}}


# --- scoring ---------------------------------------------------------------------------------------------------------


def _score(path: Path, made: dict[str, Any] | None, setting: Setting, reference: Statistics, log: Log) -> _Scored:
    log(f"{path}: measuring")
    config = setting.config
    samples = measure(path, setting.extractor, batch_size=config.batch_size, log=log)
    check_width(reference, samples.width, path=config.reference, of=str(path))
    if config.bootstrap > 1 and samples.width > _SLOW_WIDTH:
        log(f"{path}: {config.repeats or config.bootstrap} times, for the spread")
    spread = _repeat if config.repeats else _resample
    return _Scored(path, samples.provenance, spread(samples, reference, setting), made)


def _resample(samples: Statistics, reference: Statistics, setting: Setting) -> dict[str, Draws]:
    """Every score as it is and in each bootstrap resample."""
    config, count = setting.config, len(features_of(samples))
    resamples = config.bootstrap if config.bootstrap > 1 else 0
    drawn = resampling_counts(count, resamples=resamples, seed=config.seed)
    counts = np.concatenate([np.ones((1, count), np.int64), drawn])  # (R, n)
    found: dict[str, Draws] = {}
    for metric in dict.fromkeys(config.metrics):
        found |= compute(metric, samples, reference, counts, setting)
    return found


def _repeat(samples: Statistics, reference: Statistics, setting: Setting) -> dict[str, Draws]:
    """Every score of each of ``repeats`` parts of consecutive images, and in front of them their mean."""
    config, features = setting.config, features_of(samples)
    size = len(features) // config.repeats
    if size < 2:
        raise MetricError(f"--repeats {config.repeats}: there are only {len(features)} images")
    once = config.model_copy(update={"bootstrap": 0})
    parts: list[dict[str, Draws]] = []
    for first in range(0, size * config.repeats, size):
        rows = features[first : first + size]
        part = Statistics(fit_gaussian(rows), rows, samples.provenance)
        parts.append(_resample(part, reference, Setting(once, setting.extractor)))
    found = {}
    for name, draws in parts[0].items():
        values = np.array([part[name].values[0] for part in parts])
        found[name] = Draws(np.array([values.mean(), *values]), draws.subset_size)
    return found


def _row(scored: _Scored, *, base: _Scored, repeats: int) -> Row:
    scores = {}
    for name, draws in scored.draws.items():
        differences = None if scored is base else draws.values - base.draws[name].values  # (R,)
        scores[name] = Score(
            value=float(draws.values[0]),
            spread=_spread(draws.values, repeats=repeats),
            difference=None if differences is None else float(differences[0]),
            difference_spread=None if differences is None else _spread(differences, repeats=repeats),
            interval=None if differences is None else _interval(differences, repeats=repeats),
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
        made=scored.made,
    )


def _spread(values: np.ndarray, *, repeats: int = 0) -> float | None:
    """The standard error of ``values[0]``: of a score, from its resamples; of a mean, from the repeats it is over."""
    drawn = values[1:]
    if len(drawn) < 2 or not np.isfinite(drawn).all():  # not finite: kid subsets of two or three images
        return None
    return float(drawn.std(ddof=1)) / math.sqrt(repeats or 1)


def _interval(differences: np.ndarray, *, repeats: int = 0) -> tuple[float, float] | None:
    """difference -+ t * standard error, with Student's t for the few draws that the error was told from."""
    from scipy.stats import t

    spread = _spread(differences, repeats=repeats)
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
    if config.bootstrap == 1 and not config.repeats:
        yield "one resample has no spread; give --bootstrap 0 or at least 2"
    if config.repeats == 1:
        yield "one repeat has no spread; give at least --repeats 2"
    if len({one.provenance.count for one in scored}) > 1 and "fid" in config.metrics:
        yield "the folders hold different numbers of images, and FID falls with more: compare equal numbers only"
    if "prc" in config.metrics and config.bootstrap > 1 and not config.repeats:
        yield "recall has no spread by resampling: an image drawn twice is its own neighbour; --repeats gives it one"
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
        count = scored.provenance.count or 0
        yield from _too_few(scored.samples, count // (config.repeats or 1), reference.width)
        if config.repeats and count % config.repeats:
            yield f"{scored.samples}: the last {count % config.repeats} images are in none of {config.repeats} parts"
    size = scored.draws["kid"].subset_size if "kid" in scored.draws else None
    if size is not None and size < config.kid_subset_size:
        yield f"{scored.samples}: KID over subsets of {size} images, not {config.kid_subset_size}: there are no more"
    sizes, wanted = scored.provenance.image_sizes, reference.provenance.image_sizes
    if wanted and not set(sizes) & set(wanted):
        yield f"{scored.samples}: no image has the size in pixels of any reference image"


def _too_few(path: Path, count: int | None, width: int) -> Iterator[str]:
    if count is not None and count <= width:
        yield f"{path}: {count} images for {width} features: the covariance is singular and FID biased"
