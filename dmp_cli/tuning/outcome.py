"""What a search has gained: in the search itself, and on seeds and images that no trial saw.

The best of many trials looks better than it is: it was chosen for its luck too. So the gain that counts is that of the
final, and the difference between both is what choosing had added.

Letters: K seeds of the final, N draws of a measurement, n images among them.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..storage import read_object, read_text
from .journal import COMPLETE, Trial
from .plan import LOSS, Tuning

_SCORE = "report.json"


@dataclass(frozen=True)
class Gain:
    """By how much the winner is better than the defaults: above zero is better, whatever the objective."""

    mean: float
    seeds: tuple[float, ...]  # of each seed of the final
    defaults: tuple[float, ...]  # the objective of the defaults, by seed
    winner: tuple[float, ...]  # that of the winner
    interval: tuple[float, float] | None  # 95 %; None: nothing to take it from
    over: str  # what the interval is over
    bare: float | None = None  # the held-out loss of the bare network on the same draws; None: no such loss

    @property
    def excludes_zero(self) -> bool | None:
        """Whether the interval lies on one side of zero; None: there is none."""
        return None if self.interval is None else self.interval[0] > 0 or self.interval[1] < 0


@dataclass(frozen=True)
class Outcome:
    """All trials, the best one, and its gain. Values are as they are named: lower or higher may be better."""

    trials: Sequence[Trial]
    best: Trial
    searched: float  # the gain that the search saw: best trial against trial 0, on the images that chose
    final: Gain | None  # None: no trial was better than the defaults, so there is nothing to score

    @property
    def added(self) -> float | None:
        """What choosing had added to the gain that the search saw."""
        return None if self.final is None else self.searched - self.final.mean

    def to_json(self, plan: Tuning) -> dict[str, Any]:
        """The content of ``report.json``. It holds no times and no paths, so equal trials make equal bytes."""
        rows = [
            {**asdict(trial), "value": None if trial.value is None else plan.sign * trial.value}
            for trial in self.trials
        ]
        return {
            "objective": plan.objective,
            "steps": plan.steps,
            "seed": plan.seed,
            "final_seeds": list(plan.final_seeds),
            "trials": rows,
            "best": self.best.number,
            "options": {**plan.ranges.fixed, **self.best.options},
            "gain_in_search": self.searched,
            "final": self.final and {**asdict(self.final), "excludes_zero": self.final.excludes_zero},
            "gain": self.final and self.final.mean,
            "added_by_choosing": self.added,
        }


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the lowest value; of equal ones the first. Raises ConfigError where the defaults have none."""
    if not trials or trials[0].state != COMPLETE:
        reason = f": {trials[0].reason}" if trials and trials[0].reason else ""
        raise ConfigError(
            f"trial 0, which has the defaults, failed{reason}", hint="Nothing can be compared with it: mend it first."
        )
    return min((trial for trial in trials if trial.value is not None), key=lambda trial: (trial.value, trial.number))


def read_value(plan: Tuning, number: int, losses: Mapping[int, float]) -> float:
    """The value of a trial whose commands are done, which is minimised: its last loss, or its score."""
    if plan.objective == LOSS:
        return losses[max(losses)]
    report = read_object(plan.scores(number) / _SCORE)
    return plan.sign * float(report["rows"][0]["scores"][plan.objective]["value"])


def read_outcome(plan: Tuning, trials: Sequence[Trial]) -> Outcome:
    """The outcome, from the journal and from what the commands of the final wrote.

    Raises:
        ConfigError: the defaults failed, or a file of the final is missing or damaged.
    """
    best = best_of(trials)
    first = trials[0].value
    assert first is not None
    assert best.value is not None
    if best.number == 0:
        return Outcome(trials, best, 0.0, None)
    read = _read_losses if plan.objective == LOSS else _read_scores
    return Outcome(trials, best, first - best.value, read(plan, best.number))


def _read_losses(plan: Tuning, winner: int) -> Gain:
    tables = {trial: [read_draws(plan.run(trial, seed)) for seed in plan.final_seeds] for trial in (0, winner)}
    images = tables[0][0][0]
    if any(not np.array_equal(found[0], images) for rows in tables.values() for found in rows):
        raise ConfigError(
            f"{plan.folder / 'final'}: runs were measured on different draws", hint="Run it with --force."
        )
    losses = {trial: np.stack([found[1] for found in rows]) for trial, rows in tables.items()}
    bare = tables[0][0][2]
    return replace(gain_of(losses[0], losses[winner], images), bare=None if bare is None else float(bare.mean()))


def gain_of(defaults: np.ndarray, winner: np.ndarray, images: np.ndarray) -> Gain:
    """The mean gain, and its interval over seeds and images, with Student's t.

    ``defaults`` and ``winner`` are losses (K, N), ``images`` (N,) says which image each draw shows. Variances over
    seeds and over images are added up. Both hold the noise of single draws, so the sum is rather too large. With one
    seed the interval is over images alone.
    """
    from scipy.stats import t

    gains = defaults - winner  # (K, N)
    seeds, count = gains.shape
    mean = float(gains.mean())
    deviations = gains.mean(axis=0) - mean  # (N,)
    _, places = np.unique(images, return_inverse=True)
    sums = np.bincount(places, weights=deviations)  # (n,) draws of one image depend on each other
    parts = [(len(sums) / max(1, len(sums) - 1) * float((sums**2).sum()) / count**2, len(sums) - 1)]
    if seeds > 1:
        parts.append((float(gains.mean(axis=1).var(ddof=1)) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / freedom for part, freedom in parts if freedom)
    freedom = variance**2 / spread if spread else math.inf  # Welch and Satterthwaite
    reach = float(t.ppf(0.975, df=freedom)) * math.sqrt(variance)
    by_seed, before, after = (tuple(map(float, one.mean(axis=1))) for one in (gains, defaults, winner))
    over = "images" if seeds == 1 else "seeds and images"
    return Gain(mean, by_seed, before, after, (mean - reach, mean + reach), over)


def read_draws(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Image, loss, and loss of the bare network of each draw (N,) of the last measurement of a run; None: no such one.

    Raises:
        ConfigError: the table is missing or damaged.
    """
    path = run / "held-out.csv"
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
        images = np.array([int(row["image"]) for row in rows])
        losses = np.array([float(row["loss"]) for row in rows])
        bare = np.array([float(row["bare"]) for row in rows]) if any(row["bare"] for row in rows) else None
    except (KeyError, ValueError, TypeError, OverflowError, csv.Error) as error:
        raise ConfigError(f"{path} is damaged: {error}", hint="Begin again with --force.") from error
    if not len(losses) or not all(np.isfinite(found).all() for found in (losses, bare) if found is not None):
        raise ConfigError(f"{path} holds no finite losses", hint="Begin again with --force.")
    return images, losses, bare


def _read_scores(plan: Tuning, winner: int) -> Gain:
    pairs, intervals = [], []
    for seed in plan.final_seeds:
        report = read_object(plan.scores(winner, seed) / _SCORE)
        scores = [row["scores"][plan.objective] for row in report["rows"]]
        pairs.append([float(score["value"]) for score in scores])
        intervals.append(scores[1].get("interval"))
    return gain_of_scores([pair[0] for pair in pairs], [pair[1] for pair in pairs], plan.sign, intervals[0])


def gain_of_scores(
    defaults: Sequence[float], winner: Sequence[float], sign: int, alone: Sequence[float] | None
) -> Gain:
    """The mean gain in a score, and its interval over seeds, of training and of samples, with Student's t.

    With one seed it is ``alone``, the interval of the difference between both sets of samples that ``dmp eval`` gave.
    """
    from scipy.stats import t

    gains = [sign * (before - after) for before, after in zip(defaults, winner, strict=True)]
    mean, count = statistics.fmean(gains), len(gains)
    interval, over = None, "seeds of training and sampling"
    if count > 1:
        reach = float(t.ppf(0.975, df=count - 1)) * statistics.stdev(gains) / math.sqrt(count)
        interval = (mean - reach, mean + reach)
    elif alone is not None:
        low, high = sorted(-sign * float(end) for end in alone)
        interval, over = (low, high), "the images that were drawn"
    return Gain(mean, tuple(gains), tuple(defaults), tuple(winner), interval, over)
