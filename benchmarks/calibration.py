"""How often a 95 % interval excludes zero where both folders come from one model: ``python -m benchmarks.calibration``.

It draws pairs of disjoint sets of n images from stored features of one model, and asks for each pair whether the
interval of the difference of their scores excludes zero. Right is 5 %. Features are a .npy, or the .npz of
``dmp eval --save-stats``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmp_cli.evaluation.distances import Gaussian, fit_gaussian, frechet_distance
from dmp_cli.evaluation.influence import (
    Influence,
    expand_frechet,
    expand_kernel_distance,
    interval_around,
    variance_of_difference,
)


@dataclass(frozen=True)
class Setting:
    """What sets of features are scored against, and how."""

    reference: np.ndarray  # (n_ref, d)
    gaussian: Gaussian  # of the reference
    subsets: int = 20
    subset_size: int = 300
    seed: int = 0

    def score(self, features: np.ndarray) -> dict[str, tuple[float, Influence]]:
        """FID and KID of ``features`` (n, d), each with its expansion; KID only where there are subsets."""
        own = fit_gaussian(features)
        influence = expand_frechet(features, own, reference=self.gaussian)
        found = {"fid": (frechet_distance(own, reference=self.gaussian), influence)}
        if self.subsets:
            size = min(self.subset_size, len(features), len(self.reference))
            drawn = {"subsets": self.subsets, "subset_size": size, "seed": self.seed}
            values, influence = expand_kernel_distance(features, reference=self.reference, **drawn)
            found["kid"] = float(values.mean()), influence
        return found


@dataclass(frozen=True)
class Share:
    """What became of the pairs of one score at one n."""

    excluded: np.ndarray  # (pairs,), whether the interval excludes zero
    differences: np.ndarray  # (pairs,)
    errors: np.ndarray  # (pairs,), the standard errors that belong to them

    @property
    def percent(self) -> tuple[float, float]:
        """The share of intervals that exclude zero, and its standard error, in percent."""
        share = float(self.excluded.mean())
        return 100 * share, 100 * math.sqrt(share * (1 - share) / len(self.excluded))

    @property
    def width(self) -> float:
        """The root mean square of the standard errors over the standard deviation of the differences."""
        return math.sqrt(float((self.errors**2).mean() / (self.differences**2).mean()))


def measure(pairs: Iterator[tuple[np.ndarray, np.ndarray]], setting: Setting) -> dict[str, Share]:
    """Score each of ``pairs`` of sets of features (n, d)."""
    found: dict[str, list[tuple[bool, float, float]]] = {}
    for one, other in pairs:
        scores, others = setting.score(one), setting.score(other)
        for name, (value, influence) in scores.items():
            difference, against = value - others[name][0], others[name][1]
            low, high = interval_around(difference, influence, against)
            error = math.sqrt(variance_of_difference(influence, against))
            found.setdefault(name, []).append((low > 0 or high < 0, difference, error))
    return {name: Share(*map(np.array, zip(*rows, strict=True))) for name, rows in found.items()}


def draw_pairs(pool: np.ndarray, n: int, *, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """``count`` pairs of disjoint sets of n rows of ``pool``."""
    rng = np.random.default_rng([seed, n])
    for _ in range(count):
        rows = rng.choice(len(pool), 2 * n, replace=False)
        yield pool[rows[:n]], pool[rows[n:]]


def read_features(path: Path) -> np.ndarray:
    """The features (n, d) of a .npy, or of the statistics of a reference."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            features: np.ndarray = file["features"]
            return features
    return np.load(path, allow_pickle=False)


def main(arguments: list[str] | None = None) -> None:
    """Print a row for each n and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path, help="features of many samples of one model")
    parser.add_argument("reference", type=Path, help="features of real images")
    parser.add_argument("--counts", default="100,300,1000,5000", help="n, the images of a set")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--kid-subsets", type=int, default=20, help="0 leaves KID out")
    parser.add_argument("--kid-subset-size", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    pool, reference = read_features(given.pool), read_features(given.reference)
    setting = Setting(reference, fit_gaussian(reference), given.kid_subsets, given.kid_subset_size)
    print("| n | score | pairs | excludes zero, % | standard error / true |", "|---|---|---|---|---|", sep="\n")
    for n in map(int, given.counts.split(",")):
        pairs = draw_pairs(pool, n, count=given.pairs, seed=given.seed)
        for name, share in measure(pairs, setting).items():
            percent, error = share.percent
            print(f"| {n:,} | {name} | {given.pairs:,} | {percent:.1f} ± {error:.1f} | {share.width:.2f} |", flush=True)


if __name__ == "__main__":
    main()
