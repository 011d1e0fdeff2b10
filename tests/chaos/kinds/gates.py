"""The gates.npz of ``dmp inspect-gates``, damaged and forged, and the pictures beside it, for the page of scores."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmp_cli.evaluation import gates_sections
from dmp_cli.report import Page, render

from ..array_files import ARRAY_WAYS, npz
from ..cases import Kind
from ..damage import DAMAGES

_FILE = "gates.npz"
_SHAPES = ((0, 3, 16), (4, 0, 16), (4, 3, 0), (4, 3), (4,), (4, 3, 16, 1), (4, 3, 200_000), (4, 20_000, 1), (1, 1, 1))
_LENGTHS = (0, 1, 3, 5, 10_000)


class Gates(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        weights = np.random.default_rng(0).dirichlet(np.ones(16), (8, 3)).astype(np.float32)
        self.arrays = {"weights": weights, "timesteps": np.arange(999, -1, -125)}
        self.ways: dict[str, Callable[[random.Random, Path], Any]] = {
            **{f"bytes: {name}": self._damaged(damage) for name, damage in DAMAGES.items()},
            **{f"arrays: {name}": self._arrays(way) for name, way in ARRAY_WAYS.items()},
            "shapes": self._shapes,
            "timesteps": self._timesteps,
            "pictures": self._pictures,
            "no file": lambda rng, place: rng.choice(((place / _FILE).mkdir, (place / "x").touch, lambda: None))(),
        }

    def write(self, place: Path) -> None:
        (place / _FILE).write_bytes(npz(self.arrays))

    def _damaged(self, damage: Callable[[bytes, random.Random], bytes]) -> Callable[[random.Random, Path], Any]:
        return lambda rng, place: (place / _FILE).write_bytes(damage(npz(self.arrays), rng))

    def _arrays(self, way: Any) -> Callable[[random.Random, Path], Any]:
        return lambda rng, place: (place / _FILE).write_bytes(way(dict(self.arrays), rng, None))

    def _shapes(self, rng: random.Random, place: Path) -> None:
        shape = rng.choice(_SHAPES)
        count = shape[0] if rng.random() < 0.7 else 4
        arrays = {"weights": np.full(shape, 0.1, np.float32), "timesteps": np.arange(count)}
        (place / _FILE).write_bytes(npz(arrays))

    def _timesteps(self, rng: random.Random, place: Path) -> None:
        count, dtype = rng.choice(_LENGTHS), rng.choice(("<i8", "<f4", "<U9", "?"))
        steps = np.zeros(count, dtype) if rng.random() < 0.7 else np.zeros((8, 8), dtype)
        (place / _FILE).write_bytes(npz({**self.arrays, "timesteps": steps}))

    def _pictures(self, rng: random.Random, place: Path) -> None:
        self.write(place)
        name = rng.choice(("usage.png", "added.png", "comparison.png"))
        data = rng.choice((b"", b"GIF89a", b"\x89PNG", b"\x89PNG\r\n\x1a\n" + rng.randbytes(99), rng.randbytes(5000)))
        (place / name).write_bytes(data)

    def open(self, place: Path, way: str) -> str | None:
        sections = gates_sections(place)
        text = render(Page(title="gates", lead="", sections=sections)) if sections else ""
        text.encode()
        if "nan" in text.split("<img")[0].lower().split("one scale", 1)[-1][:80]:
            return "the page says that weights are nan"
        return None
