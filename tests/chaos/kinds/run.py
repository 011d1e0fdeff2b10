"""The config.json and log.jsonl of a run, damaged and forged; the run is then continued.

Damaged log lines are dropped and said; they never stop a run. A damaged config.json is refused.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmp_cli.patching import load_patch

from ..cases import Ended, Kind
from ..commands import typed
from ..forged_json import JSON_WAYS
from ..sound import Write, damaging, make_run, misplace


class Run(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.run = make_run(base)
        self.sound = (base / "sound.safetensors").read_bytes()
        logs = damaging(lambda rng, place: place / "run" / "log.jsonl", lambda rng, place: self.write(place))
        configs = damaging(lambda rng, place: place / "run" / "config.json", lambda rng, place: self.write(place))
        self.ways: dict[str, Write] = {
            **{f"log, {name}": way for name, way in logs.items()},
            **{f"log, a line: {name}": self._log_line(way) for name, way in JSON_WAYS.items()},
            "log, misplaced": lambda rng, place: self._misplaced("log.jsonl", rng, place),
            **{f"config, {name}": way for name, way in configs.items()},
            **{f"config: {name}": self._config(way) for name, way in JSON_WAYS.items()},
            **{f"config, train: {name}": self._config(way, "train") for name, way in JSON_WAYS.items()},
            **{f"config, options: {name}": self._config(way, "options") for name, way in JSON_WAYS.items()},
            "config, misplaced": lambda rng, place: self._misplaced("config.json", rng, place),
            "patch, misplaced": lambda rng, place: self._misplaced("patch.safetensors", rng, place),
        }

    def write(self, place: Path) -> None:
        shutil.copytree(self.run, place / "run")

    def _misplaced(self, name: str, rng: random.Random, place: Path) -> None:
        self.write(place)
        misplace(place / "run" / name, rng)

    def _log_line(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = place / "run" / "log.jsonl"
            lines = path.read_bytes().splitlines()
            at = rng.randrange(len(lines))
            forged = way(json.loads(lines[at]), rng)
            path.write_bytes(b"\n".join([*lines[:at], forged, *lines[at + rng.randrange(2) :]]) + b"\n")

        return write

    def _config(self, way: Callable[[Any, random.Random], bytes], part: str | None = None) -> Write:
        """config.json forged, or one part of it; what is no JSON stays as it is in its place."""

        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = place / "run" / "config.json"
            content = json.loads(path.read_text())
            if part is None:
                path.write_bytes(way(content, rng))
            else:
                text = json.dumps({**content, part: "PLACE"}).encode()
                path.write_bytes(text.replace(b'"PLACE"', way(content[part], rng)))

        return write

    def open(self, place: Path, way: str) -> str | None:
        run = place / "run"
        lost = way.startswith("log") and _has_damaged_lines(run / "log.jsonl")
        try:
            result = typed("train", "--resume", "--steps", 6, "-o", run)
        except Ended as error:
            if way.startswith("log") and "misplaced" not in way:
                return f"a damaged log stopped the run: {error}"
            raise
        if way.startswith(("log", "patch")):
            if (run / "patch.safetensors").read_bytes() != self.sound:
                return "the run went on to another patch"
            if lost and "log.jsonl" not in result.stdout + result.stderr:
                return "damaged log lines were dropped without a word"
        return _check_log(run / "log.jsonl") or _check_patch(run / "patch.safetensors")


def _has_damaged_lines(path: Path) -> bool:
    """Whether a line of a log is neither blank nor one JSON object, beside a last one that a kill may have cut."""
    if not path.is_file() or path.stat().st_size > 1 << 24:
        return False
    return any(line.strip() and not _is_line(line) for line in path.read_bytes().split(b"\n")[:-1])


def _is_line(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except (ValueError, RecursionError):
        return False


def _check_log(path: Path) -> str | None:
    return "the log holds damaged lines after the run went on" if _has_damaged_lines(path) else None


def _check_patch(path: Path) -> str | None:
    tensors = load_patch(path).state_dict().values()
    return (
        None if all(tensor.isfinite().all() for tensor in tensors) else "the run went on to a patch that is not finite"
    )
