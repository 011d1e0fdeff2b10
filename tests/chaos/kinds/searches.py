"""The journal of a search and the draws of its final, damaged and forged, and the ranges that a person writes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmp_cli.tuning import COMPLETE, PRUNED, Journal, Range, Ranges
from dmp_cli.tuning.outcome import read_draws

from ..cases import Kind
from ..commands import typed
from ..damage import DAMAGES
from ..forged_json import JSON_WAYS
from ..sound import Write, misplace

_FREE = (Range("lr", low=1e-5, high=1e-2, log=True), Range("gate", choices=("linear", "attention")))
_RANGES = Ranges((*_FREE, Range("warmup", low=0, high=8, step=4)))
_ABOUT = {"steps": 8, "inputs": {"data": "abc"}}
_DRAWS = b"image,timestep,loss,bare\n" + b"".join(b"%d,%d,0.5,0.25\n" % (i % 7, 9 * i) for i in range(40))
_TOML = b'ema = 0.5\nlr = {low = 1e-5, high = 1e-2, log = true}\ngate = ["linear", "attention"]\n[warmup]\nlow = 0\n'
_TOML += b"high = 8\nstep = 4\n"
_VALUES = ("1" * 5000, "-1", "1e400", "nan", "[]", "[[[]]]", "{}", "{a = 1}", '""', "true", "1979-05-27", "[1, 1]")
_VALUES += ("{low = 1, high = nan}", "{low = -1e308, high = 1e308}", "{low = 0, high = 9999999999999999999999}")
_VALUES += ("[{}, {}]", '["\\u0000", "x"]', "{low = 1, high = 2, step = 1e-300}", "[nan, nan]", "[inf, 1]")


def journal(folder: Path) -> Journal:
    defaults = {"lr": 1e-4, "gate": "linear", "warmup": 0}
    return Journal(folder / "journal.jsonl", ranges=_RANGES, defaults=defaults, seed=0, warmup=2)


class Searches(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        found = journal(base)
        found.open(_ABOUT)
        for number in range(6):
            found.begin()
            for step in (0, 4, 8):
                found.report(number, step, 0.5 + number + step / 9)
            if number == 4:
                found.give_up(number, state=PRUNED, reason="too high")
            elif number < 5:
                found.finish(number, 0.5 + number)
        found.mark("defaults-seed1")
        self.sound = (base / "journal.jsonl").read_bytes()
        typed("tune", "--backbone", "digits", "--dry-run")  # the first one imports libraries, which takes seconds
        self.ways: dict[str, Write] = {
            **{f"journal, {way}": self._bytes("journal.jsonl", self.sound, damage) for way, damage in DAMAGES.items()},
            **{f"journal, a line: {name}": self._line(way) for name, way in JSON_WAYS.items()},
            **{f"draws, {way}": self._bytes("held-out.csv", _DRAWS, damage) for way, damage in DAMAGES.items()},
            **{f"ranges, {way}": self._bytes("ranges.toml", _TOML, damage) for way, damage in DAMAGES.items()},
            "ranges, a value": self._value,
            "journal, misplaced": lambda rng, place: self._misplaced("journal.jsonl", self.sound, rng, place),
            "draws, misplaced": lambda rng, place: self._misplaced("held-out.csv", _DRAWS, rng, place),
        }

    def _bytes(self, name: str, sound: bytes, way: Callable[[bytes, random.Random], bytes]) -> Write:
        return lambda rng, place: (place / name).write_bytes(way(sound, rng))

    def _line(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            lines = self.sound.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = way(json.loads(lines[at]), rng).replace(b"\n", b" ")
            (place / "journal.jsonl").write_bytes(b"\n".join(lines) + b"\n")

        return write

    def _value(self, rng: random.Random, place: Path) -> None:
        lines = _TOML.splitlines()
        at = rng.choice([number for number, line in enumerate(lines) if b"=" in line])
        lines[at] = lines[at].split(b"=")[0] + b"= " + rng.choice(_VALUES).encode()
        (place / "ranges.toml").write_bytes(b"\n".join(lines) + b"\n")

    def _misplaced(self, name: str, sound: bytes, rng: random.Random, place: Path) -> None:
        (place / name).write_bytes(sound)
        misplace(place / name, rng)

    def write(self, place: Path) -> None:
        (place / "journal.jsonl").write_bytes(self.sound)

    def open(self, place: Path, way: str) -> str | None:
        if way.startswith("ranges"):
            typed("tune", "--backbone", "digits", "--ranges", place / "ranges.toml", "--dry-run", "--json")
            return None
        if way.startswith("draws"):
            images, losses, _ = read_draws(place)
            return None if len(images) == len(losses) > 0 and np.isfinite(losses).all() else "losses that are none"
        found = journal(place)
        found.open(_ABOUT)
        trials = [*found.trials(), found.begin()]
        for trial in trials:
            if any(not one.holds(trial.options[one.name]) for one in _RANGES.free if one.name in trial.options):
                return f"trial {trial.number} is none of these ranges"
            if trial.state == COMPLETE and not np.isfinite(trial.value or 0):
                return f"trial {trial.number} has no value"
        found.report(trials[-1].number, 4, 9.0)
        return None
