"""Training runs under random ``kill -9``: each writes the same patch as an undisturbed run, byte for byte."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

from dmp_cli.cli import app

from ..cases import Kind
from ..sound import make_network

_KILLS = 20
_FEWEST = 10  # kills of a process that was still running; the others come after the last step


class Kills(Kind):
    bounded = False
    most = 3

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        network, images = make_network(base)
        self.common = [str(word) for word in ("train", *network, "--data", images, "-q", "--steps", 300)]
        self.common += ["--batch-size", "4", "--save-every", "20", "--sample-every", "0", "--latent-store", "--resume"]
        begun = time.monotonic()
        self._begin(base / "straight").join()
        self.undisturbed = time.monotonic() - begun
        self.ways = {"kill -9": self._kill}

    def _begin(self, out: Path) -> multiprocessing.process.BaseProcess:
        process = multiprocessing.get_context("fork").Process(
            target=app, args=([*self.common, "-o", str(out)],), daemon=True
        )
        process.start()
        return process

    def write(self, place: Path) -> None:
        """The run alone, without a kill."""

    def _kill(self, rng: random.Random, place: Path) -> None:
        struck = 0
        for _ in range(_KILLS):
            process = self._begin(place / "killed")
            time.sleep(rng.uniform(0, self.undisturbed / 8))
            struck += process.is_alive()
            process.kill()
            process.join()
        (place / "struck").write_text(str(struck))

    def open(self, place: Path, way: str) -> str | None:
        self._begin(place / "killed").join()
        runs = (self.base / "straight", place / "killed")
        if len({(run / "patch.safetensors").read_bytes() for run in runs}) != 1:
            return "the killed run wrote another patch"
        if way != "sound" and int((place / "struck").read_text()) < _FEWEST:
            return "too few kills struck a running process to say anything"
        return None
