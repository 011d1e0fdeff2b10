"""Tokenizers and text encoders of pipelines, damaged and forged: each is refused, or encodes a caption."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmp_cli.backbones.text import load_text
from tests.backbones.text_encoders import write_clip, write_t5

from ..cases import Kind
from ..damage import DAMAGES
from ..forged_json import JSON_WAYS
from ..sound import Write, misplace
from ..tensor_files import TENSOR_WAYS, lie_about_length, parse


class Texts(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        write_clip(base / "clip")
        write_t5(base / "t5")
        self.ways: dict[str, Write] = {
            **{f"json: {name}": self._json(way) for name, way in JSON_WAYS.items()},
            **{f"bytes: {name}": self._bytes(way) for name, way in DAMAGES.items()},
            **{f"weights: {name}": self._weights(way) for name, way in TENSOR_WAYS.items()},
            "weights: lies of length": self._weights(lie_about_length),
            "misplaced": lambda rng, place: misplace(rng.choice(_files(self._folder(rng, place))), rng),
        }

    def write(self, place: Path) -> None:
        for name in ("clip", "t5"):
            shutil.copytree(self.base / name, place / name)

    def _folder(self, rng: random.Random, place: Path) -> Path:
        name = rng.choice(("clip", "t5"))
        shutil.copytree(self.base / name, place / name)
        return place / name

    def _json(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            path = rng.choice([path for path in _files(self._folder(rng, place)) if path.suffix == ".json"])
            path.write_bytes(way(json.loads(path.read_text()), rng))

        return write

    def _bytes(self, way: Callable[[bytes, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            path = rng.choice(_files(self._folder(rng, place)))
            path.write_bytes(way(path.read_bytes(), rng))

        return write

    def _weights(self, way: Callable[..., Any]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            path = self._folder(rng, place) / "text_encoder" / "model.safetensors"
            made = way(parse(path.read_bytes()), rng)
            path.write_bytes(made if isinstance(made, bytes) else made.data())

        return write

    def open(self, place: Path, way: str) -> str | None:
        for folder in sorted(place.iterdir()):
            table = load_text(folder)
            states = table.look_up(table.indices(["a red fox"]))["states"]
            if not states.isfinite().all():
                return "a caption is encoded as numbers that are not finite"
        return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
