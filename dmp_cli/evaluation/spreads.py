"""The spread of scores: standard errors and intervals, from each image's influence, from resamples or from parts.

Letters: n images, R = 1 + replicates. Entry 0 of a score is the score itself; the others come from bootstrap resamples,
or from parts of the images, and then entry 0 is their mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MetricError
from .distances import Resamples, fit_gaussian
from .influence import Influence, interval_around, variance_of, variance_of_difference
from .metrics import Replicates, Setting, compute, features_of
from .results import Row, Score
from .statistics import Provenance, Statistics

RESAMPLES = 10  # behind the spread of a score that has no expansion, where --bootstrap does not say


@dataclass(frozen=True)
class Scored:
    """One folder of samples with its scores and their replicates."""

    samples: Path
    provenance: Provenance
    scores: dict[str, Replicates]
    made: dict[str, Any] | None  # its samples.json; None: it has none

    def without_images(self) -> Scored:
        """The same without what is known of each image: what warnings read, where many folders are scored."""
        none = np.empty(0)
        scores = {
            name: score
            if score.influence is None
            else replace(score, influence=Influence(none, none, score.influence.bias))
            for name, score in self.scores.items()
        }
        return replace(self, scores=scores)


def replicate(samples: Statistics, reference: Statistics, setting: Setting) -> dict[str, Replicates]:
    """Compute every score, with replicates by parts where the config asks for ``repeats``, else by resampling.

    Raises MetricError if there are fewer than two images for each part.
    """
    spread = _score_parts if setting.config.repeats else _resample
    return spread(samples, reference, setting)


def _resample(samples: Statistics, reference: Statistics, setting: Setting) -> dict[str, Replicates]:
    """Every score, first of the images themselves, then of each bootstrap resample."""
    config, count = setting.config, len(features_of(samples))
    asked = RESAMPLES if config.bootstrap is None else config.bootstrap
    resamples = asked if asked > 1 else 0
    counts = Resamples(count, resamples=resamples, seed=config.seed)  # (R, n), a row at a time
    found: dict[str, Replicates] = {}
    for metric in dict.fromkeys(config.metrics):
        found |= compute(metric, samples, reference, counts, setting)
    return found


def _score_parts(samples: Statistics, reference: Statistics, setting: Setting) -> dict[str, Replicates]:
    """Every score of each of ``repeats`` parts of consecutive images, after the mean over the parts."""
    config, features = setting.config, features_of(samples)
    size = len(features) // config.repeats
    if size < 2:
        raise MetricError(
            f"--repeats {config.repeats} needs at least {2 * config.repeats} images, but there are only {len(features)}"
        )
    once = config.model_copy(update={"bootstrap": 0})
    parts: list[dict[str, Replicates]] = []
    for first in range(0, size * config.repeats, size):
        rows = features[first : first + size]
        part = Statistics(fit_gaussian(rows), rows, samples.provenance)
        parts.append(_resample(part, reference, Setting(once, setting.extractor)))
    found = {}
    for name, score in parts[0].items():
        values = np.array([part[name].values[0] for part in parts])
        found[name] = Replicates(np.array([values.mean(), *values]), score.subset_size)
    return found


def build_row(scored: Scored, *, base: Scored, repeats: int) -> Row:
    """The row of a folder: its scores, and their differences from those of ``base`` unless it is the base."""
    scores = {}
    for name, score in scored.scores.items():
        against = None if scored is base else base.scores[name]
        scores[name] = Score(
            value=float(score.values[0]),
            spread=_error_of(score, repeats=repeats),
            **({} if against is None else _compare(score, against, repeats=repeats)),
            subset_size=score.subset_size,
            subset_std=score.subset_std,
            bias=None if score.influence is None else score.influence.bias,
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


def _error_of(score: Replicates, *, repeats: int) -> float | None:
    if score.influence is None:
        return standard_error(score.values, repeats=repeats)
    return math.sqrt(variance_of(score.influence))


def _compare(score: Replicates, base: Replicates, *, repeats: int) -> dict[str, Any]:
    """The difference from the base's score, its spread and its interval, by the names of the fields of a Score."""
    differences = score.values - base.values  # (R,)
    if score.influence is None or base.influence is None:
        spread = standard_error(differences, repeats=repeats)
        interval = interval_of(differences, repeats=repeats)
    else:
        spread = math.sqrt(variance_of_difference(score.influence, base.influence))
        interval = interval_around(float(differences[0]), score.influence, base.influence)
    return {"difference": float(differences[0]), "difference_spread": spread, "interval": interval}


def standard_error(values: np.ndarray, *, repeats: int = 0) -> float | None:
    """Standard error of ``values[0]`` from the replicates ``values[1:]``; None: too few, or one is not finite.

    With ``repeats``, ``values[0]`` is their mean, so its error is their standard deviation over sqrt(repeats).
    """
    replicates = values[1:]
    if len(replicates) < 2 or not np.isfinite(replicates).all():  # kid gives NaN in subsets of two or three images
        return None
    return float(replicates.std(ddof=1)) / math.sqrt(repeats or 1)


# difference +- t * standard error
def interval_of(differences: np.ndarray, *, repeats: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of ``differences[0]``, with Student's t, as only a few replicates estimate the error."""
    from scipy.stats import t

    error = standard_error(differences, repeats=repeats)
    if error is None:
        return None
    reach = float(t.ppf(0.975, df=len(differences) - 2)) * error
    return float(differences[0]) - reach, float(differences[0]) + reach
