"""Folders of VAEs, damaged and forged: each is refused, or encodes and decodes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dmp_cli.latents import load_vae
from tests.latents.autoencoders import kl_vae, tiny_vae

from ..cases import Kind
from ..damage import DAMAGES
from ..forged_json import JSON_WAYS
from ..sound import Write, misplace
from ..tensor_files import TENSOR_WAYS, lie_about_length, parse

_HUGE = (10**9, 10**12, 10**30, 0, -1, 0.5, None, "4", [4], [10**9] * 3, [4] * 300, [], float("nan"), float("inf"))
_WEIGHTS = "diffusion_pytorch_model.safetensors"


class VAEs(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        kl_vae().save_pretrained(base / "kl")
        tiny_vae().save_pretrained(base / "tiny")
        self.ways: dict[str, Write] = {
            **{f"config: {name}": self._config(way) for name, way in JSON_WAYS.items()},
            "config: huge": self._config(self._huge),
            **{f"bytes: {name}": self._bytes(way) for name, way in DAMAGES.items()},
            **{f"weights: {name}": self._weights(way) for name, way in TENSOR_WAYS.items()},
            "weights: lies of length": self._weights(lie_about_length),
            "misplaced": lambda rng, place: misplace(rng.choice(sorted(self._folder(rng, place).iterdir())), rng),
        }

    def write(self, place: Path) -> None:
        shutil.copytree(self.base / "kl", place / "vae")

    def _folder(self, rng: random.Random, place: Path) -> Path:
        shutil.copytree(self.base / rng.choice(("kl", "tiny")), place / "vae")
        return place / "vae"

    def _config(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            path = self._folder(rng, place) / "config.json"
            path.write_bytes(way(json.loads(path.read_text()), rng))

        return write

    def _huge(self, value: Any, rng: random.Random) -> bytes:
        return json.dumps({**value, rng.choice(list(value)): rng.choice(_HUGE)}).encode()

    def _bytes(self, way: Callable[[bytes, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            path = rng.choice(sorted(self._folder(rng, place).iterdir()))
            path.write_bytes(way(path.read_bytes(), rng))

        return write

    def _weights(self, way: Callable[..., Any]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            path = self._folder(rng, place) / _WEIGHTS
            made = way(parse(path.read_bytes()), rng)
            path.write_bytes(made if isinstance(made, bytes) else made.data())

        return write

    def open(self, place: Path, way: str) -> str | None:
        codec = load_vae(str(place / "vae"))
        if not all(tensor.isfinite().all() for tensor in codec.vae.state_dict().values()):
            return "weights that are not finite were loaded"
        with torch.no_grad():
            measured = codec.measure(torch.zeros(1, codec.image_channels, 4 * codec.factor, 4 * codec.factor))
        return None if measured.shape[0] == 1 else "it encodes one image as several"
