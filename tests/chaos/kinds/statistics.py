"""Statistics of images (.npz), damaged and forged: each is refused, or is a mean and a covariance as its file says."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmp_cli.evaluation import fit_gaussian, frechet_distance
from dmp_cli.evaluation.statistics import Provenance, Statistics, _digest, load_statistics, save_statistics

from ..array_files import ARRAY_WAYS, npz
from ..cases import Kind
from ..damage import DAMAGES
from ..forged_json import JSON_WAYS

_FILE = "real.npz"


class StatisticsFiles(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        features = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
        made = Provenance(features="pixels", digest="pixels", count=20, source="real", image_sizes=((8, 8),))
        self.sound = Statistics(fit_gaussian(features), features, made)
        save_statistics(base / _FILE, self.sound)
        self.data = (base / _FILE).read_bytes()
        with np.load(base / _FILE) as stored:
            self.arrays = {key: stored[key] for key in stored.files}
        self.about = made.model_dump(mode="json")
        self.ways: dict[str, Callable[[random.Random, Path], Any]] = {
            **{f"bytes: {name}": self._damaged(damage) for name, damage in DAMAGES.items()},
            **{f"sealed: {name}": self._arrays(way, sealed=True) for name, way in ARRAY_WAYS.items()},
            **{f"foreign: {name}": self._arrays(way, sealed=False) for name, way in ARRAY_WAYS.items()},
            **{f"provenance: {name}": self._provenance(way) for name, way in JSON_WAYS.items()},
            "sigma: indefinite": self._sigma(lambda s, rng: s - np.eye(len(s)) * 10 ** rng.uniform(-1, 20)),
            "sigma: asymmetric": self._sigma(lambda s, rng: s + np.triu(np.ones_like(s), 1) * 10 ** rng.uniform(-3, 5)),
            "sigma: huge": self._sigma(lambda s, rng: s * 10 ** rng.uniform(100, 305)),
            "sigma: zero": self._sigma(lambda s, rng: s * 0),
        }

    def write(self, place: Path) -> None:
        (place / _FILE).write_bytes(self.data)

    def _damaged(self, damage: Callable[[bytes, random.Random], bytes]) -> Callable[[random.Random, Path], Any]:
        return lambda rng, place: (place / _FILE).write_bytes(damage(self.data, rng))

    def _arrays(self, way: Any, *, sealed: bool) -> Callable[[random.Random, Path], Any]:
        """Arrays forged; ``sealed``: with the digest they ask for; else without a digest, as of another tool."""

        def write(rng: random.Random, place: Path) -> None:
            kept = ("provenance", "mu", "sigma", "features") if sealed else ("mu", "sigma")
            (place / _FILE).write_bytes(way({key: self.arrays[key] for key in kept}, rng, _seal if sealed else None))

        return write

    def _provenance(self, way: Callable[[Any, random.Random], bytes]) -> Callable[[random.Random, Path], Any]:
        def write(rng: random.Random, place: Path) -> None:
            text = way(self.about, rng).decode("utf-8", "replace")
            arrays = {**{k: v for k, v in self.arrays.items() if k != "digest"}, "provenance": np.array(text)}
            (place / _FILE).write_bytes(npz(_seal(arrays)))

        return write

    def _sigma(self, change: Callable[[np.ndarray, random.Random], np.ndarray]) -> Callable[[random.Random, Path], Any]:
        def write(rng: random.Random, place: Path) -> None:
            arrays = {"mu": self.arrays["mu"], "sigma": change(self.arrays["sigma"], rng)}
            (place / _FILE).write_bytes(npz(arrays))

        return write

    def open(self, place: Path, way: str) -> str | None:
        found = load_statistics(place / _FILE)
        mean, covariance = found.gaussian.mean, found.gaussian.covariance
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            return "a mean or covariance that is not finite was loaded"
        if not np.allclose(covariance, covariance.T):
            return "a covariance that is not symmetric was loaded"
        if np.linalg.eigvalsh(covariance).min() < -1e-6 * max(1.0, float(np.abs(covariance).max())):
            return "a covariance that is not positive semidefinite was loaded"
        if found.features is not None and found.features.dtype.kind != "f":
            return "features that are no floating-point numbers were loaded"
        if found.features is not None and not np.isfinite(found.features).all():
            return "features that are not finite were loaded"
        if found.features is not None and found.features.shape != (found.count, len(mean)):
            return "features of another number or width were loaded"
        if way.startswith("bytes") and not (
            np.array_equal(mean, self.sound.gaussian.mean)
            and np.array_equal(covariance, self.sound.gaussian.covariance)
        ):
            return "other numbers were read than were written"
        if len(mean) == len(self.sound.gaussian.mean):
            distance = frechet_distance(self.sound.gaussian, reference=found.gaussian)
            if not np.isfinite(distance):
                return "a distance that is not finite"
            if distance < -1e-6 * max(1.0, float(np.trace(covariance)), float(np.abs(mean).max()) ** 2):
                return "a distance below zero"
        return None


def _seal(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``arrays`` with the digest that the tool would give them."""
    return {"digest": np.array(_digest(arrays)), **arrays}
