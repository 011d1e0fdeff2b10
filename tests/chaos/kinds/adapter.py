"""Folders of LoRA adapters, damaged and forged: each is refused, or is what its own files say."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dmp_cli.patching import ADAPTER_TENSORS, load_adapter, save_adapter
from tests.patching.adapters import create, fill, known

from ...builders import call_of
from ..cases import Kind
from ..forged_json import JSON_WAYS
from ..sound import Write, damaging, misplace
from ..tensor_files import TENSOR_WAYS, lie_about_length, parse, values_of

_RANKS: tuple[Any, ...] = (10**9, 10**12, 10**30, 0, -1, 4.0, True, "4", None, 5, 3)


class Adapters(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        adapter = create(known())
        fill(adapter)
        save_adapter(base / "adapter", adapter, training={"steps": 3})
        self.folder = base / "adapter"
        self.ways: dict[str, Write] = {
            **damaging(self._some_file, lambda rng, place: self.write(place)),
            **{f"config: {name}": self._json("adapter_config.json", way) for name, way in JSON_WAYS.items()},
            **{f"dmp.json: {name}": self._json("dmp.json", way) for name, way in JSON_WAYS.items()},
            **{f"tensors: {name}": self._tensors(way) for name, way in TENSOR_WAYS.items()},
            "tensors: lies of length": self._tensors(lie_about_length),
            "rank": self._json("adapter_config.json", self._rank),
            "targets": self._json("adapter_config.json", self._targets),
            "misplaced": lambda rng, place: (self.write(place), misplace(self._some_file(rng, place), rng)),
        }

    def write(self, place: Path) -> None:
        shutil.copytree(self.folder, place / "adapter")

    def _some_file(self, rng: random.Random, place: Path) -> Path:
        return rng.choice(sorted((place / "adapter").iterdir()))

    def _json(self, name: str, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = place / "adapter" / name
            path.write_bytes(way(json.loads(path.read_text()), rng))

        return write

    def _rank(self, value: Any, rng: random.Random) -> bytes:
        rank = rng.choice(_RANKS)
        return json.dumps({**value, "r": rank, **({"lora_alpha": rank} if rng.random() < 0.5 else {})}).encode()

    def _targets(self, value: Any, rng: random.Random) -> bytes:
        names = value["target_modules"]
        others: list[Any] = [
            names * 2,
            names[:1],
            [*names, "blocks.0"],
            [*names, ""],
            names[::-1],
            [names[0]] * 10_000,
            [],
        ]
        return json.dumps({**value, "target_modules": rng.choice(others)}).encode()

    def _tensors(self, way: Callable[..., Any]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = place / "adapter" / ADAPTER_TENSORS
            made = way(parse(path.read_bytes()), rng)
            path.write_bytes(made if isinstance(made, bytes) else made.data())

        return write

    def open(self, place: Path, way: str) -> str | None:
        backbone = known()
        adapter = load_adapter(place / "adapter", backbone)
        expected = values_of(parse((place / "adapter" / ADAPTER_TENSORS).read_bytes()))
        if expected.keys() != adapter.parameters.keys():
            return "its tensors have other names than in the file"
        for name, values in expected.items():
            if not values.isfinite().all():
                return "a tensor holds NaN or infinity, and was loaded"
            if not torch.equal(adapter.parameters[name].detach(), values.float()):
                return "a tensor holds other numbers than the file"
        with torch.no_grad():
            backbone(*call_of(backbone, count=1))
        return None
