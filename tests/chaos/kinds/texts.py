"""Text stores, damaged and forged, then filled and read: damage is made again, and every value is right."""

from __future__ import annotations

import json
import random
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dmp_cli.errors import DataError
from dmp_cli.texts import TextStore, fill
from tests.texts.encoders import LetterEncoders, make, store_of

from ..cases import Kind
from ..forged_json import FORGERIES, JSON_WAYS
from ..sound import Write, damaging, misplace
from ..tensor_files import TENSOR_WAYS, lie_about_length, parse

_CAPTIONS = [f"{number}" * number for number in range(9)]


class Texts(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        fill._MOST = 3  # captions a file
        self.encoders = LetterEncoders(masked=True)
        made = store_of(base / "store", self.encoders)
        make(made, _CAPTIONS, self.encoders)
        self.store, self.sound = base / "store", _values(made)
        self.ways: dict[str, Write] = {
            **damaging(self._some_file, lambda rng, place: self.write(place)),
            **{f"manifest: {name}": self._changed("manifest.json", _json(way)) for name, way in JSON_WAYS.items()},
            **{f"tensors: {name}": self._changed("*.safetensors", _tensors(way)) for name, way in TENSOR_WAYS.items()},
            "tensors: lies of length": self._changed("*.safetensors", _tensors(lie_about_length)),
            **{f"sealed header: {name}": self._changed("*.safetensors", _sealed(w)) for name, w in FORGERIES.items()},
            "misplaced": lambda rng, place: (self.write(place), misplace(self._some_file(rng, place), rng)),
        }

    def write(self, place: Path) -> None:
        shutil.copytree(self.store, place / "store", ignore=shutil.ignore_patterns(".locks"))

    def _some_file(self, rng: random.Random, place: Path) -> Path:
        return rng.choice([path for path in sorted((place / "store").iterdir()) if path.is_file()])

    def _changed(self, pattern: str, change: Callable[[bytes, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = rng.choice(sorted((place / "store").glob(pattern)))
            path.write_bytes(change(path.read_bytes(), rng))

        return write

    def open(self, place: Path, way: str) -> str | None:
        store = store_of(place / "store", self.encoders)
        make(store, _CAPTIONS, self.encoders)
        try:
            values = _values(store)
        except DataError:  # the file was dropped, and is made again by the next command
            store.claim()
            make(store, _CAPTIONS, self.encoders)
            values = _values(store)
        right = all(torch.equal(one, other) for one, other in zip(values, self.sound, strict=True))
        return None if right else "other values were read than were encoded"


def _values(store: TextStore) -> list[torch.Tensor]:
    rows = [store.find(caption) for caption in _CAPTIONS]
    return [row[name] for row in rows if row is not None for name in ("states", "mask", "pooled")]


def _json(way: Callable[[Any, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    return lambda data, rng: way(json.loads(data), rng)


def _tensors(way: Callable[..., Any]) -> Callable[[bytes, random.Random], bytes]:
    def change(data: bytes, rng: random.Random) -> bytes:
        made = way(parse(data), rng)
        return made if isinstance(made, bytes) else made.data()

    return change


def _sealed(way: Callable[[Any, random.Random], Any]) -> Callable[[bytes, random.Random], bytes]:
    """The header of one file forged, with the checksum that it asks for."""

    def change(data: bytes, rng: random.Random) -> bytes:
        file = parse(data)
        text = json.dumps(way(json.loads(file.metadata["dmp.texts"]), rng))
        metadata = {**file.metadata, "dmp.texts": text, "dmp.crc32": str(zlib.crc32(text.encode()))}
        return replace(file, metadata=metadata).data()

    return change
