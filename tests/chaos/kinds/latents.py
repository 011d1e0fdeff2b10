"""Latents kept by ``dmp sample --keep-latents``, damaged and forged: refused, or finite values of one latent."""

from __future__ import annotations

import io
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmp_cli.config import SampleConfig
from dmp_cli.data import OwnSamples, find_images
from dmp_cli.sampling import Plan, SampleFolder

from ..array_files import ARRAY_WAYS, npy
from ..cases import Kind
from ..damage import DAMAGES
from ..sound import Write, misplace

_NAME = "000001.latent.npy"
_TYPES = ("<f4", ">f4", "<f8", "<f2", "<i4", "|u1", "|b1", "<c8", "|S4")
_SHAPES = ((4, 2, 2), (4, 4), (16,), (), (1, 4, 2, 2), (0, 2, 2), (2, 2, 4))


class Latents(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        latents = np.random.default_rng(0).standard_normal((2, 4, 2, 2), np.float32)
        self.sound, config = {"latent": latents[1]}, SampleConfig(num_images=2)
        made = {"sample": config.model_dump(mode="json"), "latents": "float32", "codec": {"kind": "vae", "digest": "x"}}
        folder = SampleFolder(base / "own")
        folder.open(made, origin={}, num_images=2, force=False)
        folder.write_plan(lambda: [Plan(config).text(2)])
        folder.write({index: np.zeros((8, 8, 3), np.uint8) for index in range(2)}, dict(enumerate(latents)))
        self.ways: dict[str, Write] = {
            **{f"bytes: {name}": self._written(way) for name, way in DAMAGES.items()},
            **{f"arrays: {name}": self._forged(way) for name, way in ARRAY_WAYS.items()},
            "shapes": self._shapes,
            "misplaced": lambda rng, place: (self.write(place), misplace(place / "own" / _NAME, rng)),
        }

    def write(self, place: Path) -> None:
        shutil.copytree(self.base / "own", place / "own")

    def _put(self, place: Path, data: bytes) -> None:
        self.write(place)
        (place / "own" / _NAME).write_bytes(data)

    def _written(self, way: Callable[[bytes, random.Random], bytes]) -> Write:
        return lambda rng, place: self._put(place, way(npy(self.sound["latent"]), rng))

    def _forged(self, way: Any) -> Write:
        """The first array of a forged .npz, where it can be taken out; else that file as it is."""

        def write(rng: random.Random, place: Path) -> None:
            data = way(dict(self.sound), rng, None)
            try:
                with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(archive.namelist()[0]) as entry:
                    data = entry.read(1 << 24)
            except Exception:  # of any type: the zip itself is forged
                pass
            self._put(place, data)

        return write

    def _shapes(self, rng: random.Random, place: Path) -> None:
        made = np.zeros(rng.choice(_SHAPES), rng.choice(_TYPES if rng.random() < 0.5 else ("<f4",)))
        self._put(place, npy(np.asfortranarray(made) if rng.random() < 0.3 else made))

    def open(self, place: Path, way: str) -> str | None:
        images = find_images(place / "own")
        if not isinstance(images, OwnSamples):
            return "it is no folder of samples"
        values = images.read_latent(1)
        right = values.dtype == np.float32 and values.ndim == 3 and bool(np.isfinite(values).all())
        return None if right else f"a latent of {values.dtype} {values.shape}"
