"""The interval of a difference that was measured once per training seed.

Letters: K seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

_SHARE = 0.95  # of the intervals that cover the true difference


class Interval(NamedTuple):
    """A 95 % interval, and what it covers."""

    low: float
    high: float
    kind: str  # KINDS says what each one means


KINDS = {
    "images": "over the images of one seed alone: another training seed may lie outside of it",
    "seeds": "over the seeds, each with its own noise of training and of sampling, by Student's t with K - 1 degrees "
    "of freedom, and not narrower than over the images alone; the reference's images are the same for all seeds",
}


def interval_of_seeds(differences: Sequence[float], within: Sequence[tuple[float, float] | None]) -> Interval | None:
    """The 95 % interval of the mean of K ``differences``, one of each seed; None where nothing says how wide it is.

    ``within`` are the intervals of each of them over its images; None where a score has none. The interval reaches as
    far as t s / sqrt(K), with the standard deviation s over the seeds, and as far as the images alone reach: with few
    seeds, s can be small by chance.
    """
    from scipy import stats

    count, mean = len(differences), statistics.fmean(differences)
    known = [own for own in within if own is not None]
    if count == 1:
        return Interval(*known[0], "images") if known else None
    by_seeds = float(stats.t.ppf((1 + _SHARE) / 2, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    by_images = math.sqrt(statistics.fmean([((high - low) / 2) ** 2 for low, high in known]) / count) if known else 0.0
    reach = max(by_seeds, by_images)
    return Interval(mean - reach, mean + reach, "seeds")
