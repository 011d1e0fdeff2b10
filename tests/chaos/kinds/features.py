"""TorchScript files of feature networks, damaged: each is refused, or gives features."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from dmp_cli.storage import open_torchscript

from ..cases import Kind
from ..damage import DAMAGES
from ..sound import Write


class Narrow(torch.nn.Module):
    """Three features of an image: the mean of each channel, weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) * self.weight


class Features(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(Narrow().eval(), torch.zeros(1, 3, 8, 8)).save(str(base / "x.pt"))
        self.data = (base / "x.pt").read_bytes()
        self.ways: dict[str, Write] = {
            **{f"bytes: {name}": self._bytes(way) for name, way in DAMAGES.items()},
            **{f"member: {name}": self._member(way) for name, way in DAMAGES.items()},
        }

    def write(self, place: Path) -> None:
        (place / "x.pt").write_bytes(self.data)

    def _bytes(self, way: Callable[[bytes, random.Random], bytes]) -> Write:
        return lambda rng, place: (place / "x.pt").write_bytes(way(self.data, rng))

    def _member(self, way: Callable[[bytes, random.Random], bytes]) -> Write:
        """One member of the zip damaged, its checksum as its bytes ask for."""

        def write(rng: random.Random, place: Path) -> None:
            with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            name = rng.choice([name for name, data in members.items() if len(data) > 1])
            members[name] = way(members[name], rng)
            with zipfile.ZipFile(place / "x.pt", "w") as archive:
                for key, data in members.items():
                    archive.writestr(key, data)

        return write

    def open(self, place: Path, way: str) -> str | None:
        network = open_torchscript(place / "x.pt")
        found = network(torch.ones(1, 3, 8, 8)) if way == "sound" else None
        return None if found is None or found.shape == (1, 3) else f"features of shape {tuple(found.shape)}"
