"""Latent stores, damaged and forged, then filled and read: damage is made again, and every value is right."""

from __future__ import annotations

import json
import random
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dmp_cli.data import Damaged
from dmp_cli.errors import DataError
from dmp_cli.latents import LatentStore, store as store_module
from tests.latents.stores import COUNT, make, store_of, vae_codec

from ...builders import write_images
from ..cases import Kind
from ..forged_json import FORGERIES, JSON_WAYS
from ..sound import Write, damaging, misplace
from ..tensor_files import TENSOR_WAYS, lie_about_length, parse


class Store(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        store_module._FILE_BYTES = 4 * 2 * 8 * 8 * 8 * 4  # four images a file
        self.images = write_images(base / "photos", count=COUNT, size=16)
        self.codec = vae_codec()
        made = store_of(self.images, base / "store", codec=self.codec)
        make(made, self.images, codec=self.codec)
        self.store = base / "store"
        self.sound = _values(made)
        self.ways: dict[str, Write] = {
            **damaging(self._some_file, lambda rng, place: self.write(place)),
            **{f"manifest: {name}": self._manifest(way) for name, way in JSON_WAYS.items()},
            **{f"tensors: {name}": self._tensors(way) for name, way in TENSOR_WAYS.items()},
            "tensors: lies of length": self._tensors(lie_about_length),
            **{f"sealed header: {name}": self._header(way) for name, way in FORGERIES.items()},
            "misplaced": lambda rng, place: (self.write(place), misplace(self._some_file(rng, place), rng)),
            "stray": self._stray,
        }

    def write(self, place: Path) -> None:
        shutil.copytree(self.store, place / "store", ignore=shutil.ignore_patterns(".locks"))

    def _some_file(self, rng: random.Random, place: Path) -> Path:
        return rng.choice([path for path in sorted((place / "store").iterdir()) if path.is_file()])

    def _manifest(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = place / "store" / "manifest.json"
            path.write_bytes(way(json.loads(path.read_text()), rng))

        return write

    def _tensors(self, way: Callable[..., Any]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = rng.choice(sorted((place / "store").glob("*.safetensors")))
            made = way(parse(path.read_bytes()), rng)
            path.write_bytes(made if isinstance(made, bytes) else made.data())

        return write

    def _header(self, way: Callable[[Any, random.Random], Any]) -> Write:
        """The header of one file forged, with the checksum that it asks for."""

        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = place / "store" / f"{rng.randrange(3):05d}.safetensors"
            file = parse(path.read_bytes())
            text = json.dumps(way(json.loads(file.metadata["dmp.latents"]), rng))
            metadata = {**file.metadata, "dmp.latents": text, "dmp.crc32": str(zlib.crc32(text.encode()))}
            path.write_bytes(replace(file, metadata=metadata).data())

        return write

    def _stray(self, rng: random.Random, place: Path) -> None:
        self.write(place)
        names = (
            "99999.safetensors",
            "x.safetensors",
            "x",
            ".locks",
            "00003.sources.safetensors",
            ".00001.safetensors.partial",
        )
        path = place / "store" / rng.choice((*names, "00001.safetensors.safetensors", "\udcff.safetensors"))
        rng.choice(
            (path.touch, path.mkdir, lambda: path.symlink_to("00000.safetensors"), lambda: path.symlink_to(path.name))
        )()

    def open(self, place: Path, way: str) -> str | None:
        store = store_of(self.images, place / "store", codec=self.codec)
        try:
            make(store, self.images, codec=self.codec, max_bad=COUNT)
        except Damaged as error:  # as fill_store does
            raise DataError(str(error)) from error
        try:
            values = _values(store)
        except Damaged:  # the file was dropped, and is made again by the next command
            make(store, self.images, codec=self.codec)
            values = _values(store)
        return None if np.array_equal(values, self.sound) else "other values were read than were encoded"


def _values(store: LatentStore) -> np.ndarray:
    return np.stack([store.read(index, mirrored=side) for index in range(COUNT) for side in (False, True)])
