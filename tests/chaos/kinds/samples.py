"""Folders of samples, damaged and forged, then verified, continued, scored and taken as data.

What is verified and continued has the bytes that were drawn; what is scored gives a finite score; data have the classes
that were drawn.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmp_cli.data import find_images
from dmp_cli.sampling import SampleFolder

from ..archive_files import TAR_WAYS
from ..cases import Kind
from ..commands import typed
from ..forged_json import JSON_WAYS
from ..sound import Write, damaging, make_samples, misplace

_COUNT = 6


class Samples(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.options, self.folders = make_samples(base)
        self.reference = base / "images"
        self.labels = find_images(self.folders["single"]).labels.tolist()
        self.sound = [(self.folders["single"] / f"{index:06d}.png").read_bytes() for index in range(_COUNT)]
        tar = (self.folders["tar"] / "samples-00000.tar").read_bytes()
        self.members = _members(tar)
        self.ways: dict[str, Write] = {
            **damaging(self._some_file, self._copy),
            **{f"samples.json: {name}": self._json("samples.json", way) for name, way in JSON_WAYS.items()},
            **{f"plan.jsonl: {name}": self._plan(way) for name, way in JSON_WAYS.items()},
            **{f"tar: {name}": self._tar(way) for name, way in TAR_WAYS.items()},
            "misplaced": lambda rng, place: (self._copy(rng, place), misplace(self._some_file(rng, place), rng)),
            "sums": self._sums,
            "stray": self._stray,
        }

    def write(self, place: Path) -> None:
        shutil.copytree(self.folders["single"], place / "out")
        (place / "then").write_text("verify again eval")

    def _copy(self, rng: random.Random, place: Path, form: str | None = None) -> None:
        shutil.copytree(self.folders[form or rng.choice(("single", "tar"))], place / "out")
        (place / "then").write_text(
            rng.choice(("verify", "again", "eval", "data", "verify again", "again eval", "again data"))
        )

    def _some_file(self, rng: random.Random, place: Path) -> Path:
        return rng.choice([p for p in sorted((place / "out").iterdir()) if p.is_file() and p.name != ".lock"])

    def _json(self, name: str, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self._copy(rng, place)
            path = place / "out" / name
            path.write_bytes(way(json.loads(path.read_text()), rng))

        return write

    def _plan(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self._copy(rng, place)
            path = place / "out" / "plan.jsonl"
            lines = path.read_bytes().splitlines()
            at = rng.randrange(len(lines))
            path.write_bytes(b"\n".join([*lines[:at], way(json.loads(lines[at]), rng), *lines[at + 1 :]]) + b"\n")

        return write

    def _tar(self, way: Callable[..., bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self._copy(rng, place, "tar")
            (place / "out" / "samples-00000.tar").write_bytes(way(dict(self.members), rng))

        return write

    def _sums(self, rng: random.Random, place: Path) -> None:
        """Lines of SHA256SUMS that are added, lost or of other files; the images are as they were."""
        self._copy(rng, place)
        path = place / "out" / "SHA256SUMS"
        lines = path.read_text().splitlines()
        at = rng.randrange(len(lines))
        new = rng.choice(
            ("0" * 64 + "  000000.png", "0" * 64 + "  ../x.png", "x" * 10_000, "# samples made as 0", "\0", "é")
        )
        path.write_text(
            "\n".join([*lines[:at], *([new] * rng.choice((1, 1, 100_000))), *lines[at + rng.randrange(2) :]])
        )

    def _stray(self, rng: random.Random, place: Path) -> None:
        self._copy(rng, place)
        names = (
            "000006.png",
            "x.png",
            "9" * 200 + ".png",
            "samples-00001.tar",
            "samples-99999999999.tar",
            "a\nb.png",
            "SHA256SUMSx",
        )
        path = (
            place / "out" / rng.choice((*names, "SHA256SUMS.1-of-2", ".000000.png.partial", ".x.partial", "\udcff.png"))
        )
        rng.choice(
            (path.touch, path.mkdir, lambda: path.symlink_to("000000.png"), lambda: path.symlink_to(path.name))
        )()

    def open(self, place: Path, way: str) -> str | None:
        out, then = place / "out", (place / "then").read_text().split()
        wrong = None
        if "verify" in then:
            typed("sample", "--verify", "-o", out)
            wrong = self._check_images(out, "verified")
        if "again" in then and not wrong:
            typed("sample", *self.options, "-o", out)
            wrong = self._check_images(out, "drawn on")
        if "eval" in then and not wrong:
            score = ["--features", "pixels", "--bootstrap", 0, "--crop", "none", "-q"]
            typed("eval", "--samples", out, "--reference", self.reference, *score, "-o", place / "scores")
            report = json.loads((place / "scores" / "report.json").read_text())
            value = report["rows"][0]["scores"]["fid"]["value"]
            wrong = None if 0 <= value < 1e6 else f"a score of {value}"
        if "data" in then and not wrong:
            labels = find_images(out).labels.tolist()
            wrong = None if labels == self.labels else f"data of the classes {labels}"
        return wrong

    def _check_images(self, out: Path, what: str) -> str | None:
        """Every image has the bytes that were drawn, in the folder or in its tar."""
        folder = SampleFolder(out)
        other = [index for index, expected in enumerate(self.sound) if folder.read(index) != expected]
        return f"an image has other bytes, and was {what}" if other else None


def _members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {m.name: file.read() for m in archive if (file := archive.extractfile(m)) is not None}
