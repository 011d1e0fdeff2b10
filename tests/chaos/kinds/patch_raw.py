"""Patch files with changed bytes: each is refused, or holds the same numbers."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from dmp_cli.patching import load_patch, read_record, save_patch
from tests.patching.adapters import known

from ...builders import filled_patch, same_weights
from ..cases import Kind
from ..damage import DAMAGES


class PatchRaw(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        torch.manual_seed(0)
        self.patch = filled_patch(known())
        save_patch(base / "patch.safetensors", self.patch)
        self.data = (base / "patch.safetensors").read_bytes()
        self.ways = {name: self._damaged(damage) for name, damage in DAMAGES.items()}

    def _damaged(self, damage):  # type: ignore[no-untyped-def]
        def write(rng: random.Random, place: Path) -> None:
            (place / "patch.safetensors").write_bytes(damage(self.data, rng))

        return write

    def write(self, place: Path) -> None:
        (place / "patch.safetensors").write_bytes(self.data)

    def open(self, place: Path, way: str) -> str | None:
        record, found = read_record(place / "patch.safetensors"), load_patch(place / "patch.safetensors")
        if record != self.patch.record or found.record != record:
            return "another header was read than was written"
        return None if same_weights(found, self.patch) else "other numbers were read than were written"
