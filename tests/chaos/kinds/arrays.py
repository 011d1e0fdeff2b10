"""The samples.npz of ``dmp sample --npz``, damaged and forged: refused, or read as the images that its header says."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmp_cli.evaluation.samples import find_samples

from ..array_files import ARRAY_WAYS, npy, npz, zipped
from ..cases import Kind
from ..damage import DAMAGES
from ..sound import Write, misplace
from .archives import read_all

_FILE = "samples.npz"
_SHAPES = (
    (0, 8, 8, 3),
    (6, 0, 8, 3),
    (6, 8, 8, 0),
    (6, 8, 8, 4),
    (6, 8, 8),
    (6, 8),
    (6,),
    (),
    (1, 8, 8, 3),
    (2, 1, 50_000, 3),
)
_TYPES = ("<f4", "<i8", "|u1", "|b1", "<u2", "|S1", "<c8")


class Arrays(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
        self.arrays: dict[str, np.ndarray] = {"arr_0": pixels, "arr_1": np.arange(6)}
        self.ways: dict[str, Write] = {
            **{f"bytes: {name}": self._bytes(way) for name, way in DAMAGES.items()},
            **{f"arrays: {name}": self._arrays(way) for name, way in ARRAY_WAYS.items()},
            "shapes": self._shapes,
            "packed": self._packed,
            "misplaced": lambda rng, place: (self.write(place), misplace(place / _FILE, rng)),
        }

    def write(self, place: Path) -> None:
        (place / _FILE).write_bytes(npz(self.arrays))

    def _bytes(self, way: Callable[[bytes, random.Random], bytes]) -> Write:
        return lambda rng, place: (place / _FILE).write_bytes(way(npz(self.arrays), rng))

    def _arrays(self, way: Any) -> Write:
        return lambda rng, place: (place / _FILE).write_bytes(way(dict(self.arrays), rng, None))

    def _shapes(self, rng: random.Random, place: Path) -> None:
        made = np.zeros(rng.choice(_SHAPES), rng.choice(_TYPES if rng.random() < 0.5 else ("|u1",)))
        (place / _FILE).write_bytes(npz({"arr_0": np.asfortranarray(made) if rng.random() < 0.3 else made}))

    def _packed(self, rng: random.Random, place: Path) -> None:
        """Members that are packed, by each method of zip."""
        (place / _FILE).write_bytes(zipped({"arr_0.npy": npy(self.arrays["arr_0"])}, method=rng.choice((8, 12, 14))))

    def open(self, place: Path, way: str) -> str | None:
        images, indices = find_samples(place / _FILE)
        return read_all(images) if len(indices) == len(images) else "some of the images are no samples"
