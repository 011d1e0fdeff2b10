"""Training checkpoints of the paper's authors, damaged and forged, for ``dmp patch --from``."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save

from dmp_cli.patching import load_patch

from ...builders import authors_patch, tiny_dit, write_authors_checkpoint
from ..cases import Kind
from ..commands import typed
from ..damage import DAMAGES
from ..sound import Write, misplace
from ..tensor_files import TENSOR_WAYS, lie_about_length, parse


class Imports(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        backbone = tiny_dit()
        tensors = {**backbone.state_dict(), **authors_patch(backbone)}
        write_authors_checkpoint(base / "authors.pt", tensors)
        self.pickle = (base / "authors.pt").read_bytes()
        self.file = parse(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
        self.ways: dict[str, Write] = {
            **{f"bytes: {name}": self._bytes(way) for name, way in DAMAGES.items()},
            **{f"tensors: {name}": self._tensors(way) for name, way in TENSOR_WAYS.items()},
            "tensors: lies of length": self._tensors(lie_about_length),
            "misplaced": lambda rng, place: (self.write(place), misplace(place / "authors.pt", rng)),
        }

    def write(self, place: Path) -> None:
        (place / "authors.pt").write_bytes(self.pickle)

    def _bytes(self, way: Callable[[bytes, random.Random], bytes]) -> Write:
        return lambda rng, place: (place / "authors.pt").write_bytes(way(self.pickle, rng))

    def _tensors(self, way: Callable[..., Any]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            made = way(self.file, rng)
            (place / "authors.safetensors").write_bytes(made if isinstance(made, bytes) else made.data())

        return write

    def open(self, place: Path, way: str) -> str | None:
        path = next(place.iterdir(), place / "authors.pt")
        typed("patch", "--from", path, "--num-classes", 4, "--num-heads", 2, "-q", "-o", place / "made.safetensors")
        tensors = load_patch(place / "made.safetensors").state_dict().values()
        return None if all(tensor.isfinite().all() for tensor in tensors) else "a patch that is not finite was written"
