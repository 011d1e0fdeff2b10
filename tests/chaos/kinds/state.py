"""Checkpoints of a run, damaged, or forged and sealed anew; each run is then continued.

A damaged checkpoint is passed over, and the run ends with the patch of an undisturbed one, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmp_cli.patching import load_patch
from dmp_cli.training import RunFolder

from ..cases import Kind
from ..commands import typed
from ..forged_json import FORGERIES, JSON_WAYS
from ..sound import Write, damaging, make_run, misplace
from ..tensor_files import TENSOR_WAYS, lie_about_length, parse

_PARTS = ("learnt", "helpers", "optimizer", "ema")
_STEPS: tuple[Any, ...] = (
    10**30,
    -1,
    -(10**9),
    2.5,
    True,
    None,
    "4",
    [4],
    10**12,
    0,
    5,
    6,
    7,
    float("nan"),
    float("inf"),
)


class State(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.run = make_run(base)
        self.sound = (base / "sound.safetensors").read_bytes()
        self.ways: dict[str, Write] = {
            **damaging(self._some_file, lambda rng, place: self.write(place)),
            "misplaced": lambda rng, place: (self.write(place), misplace(self._some_file(rng, place), rng)),
            "stray": self._stray,
            "sealed: step": self._step,
            **{f"sealed manifest: {name}": self._manifest(way) for name, way in FORGERIES.items()},
            **{f"manifest: {name}": self._manifest_text(way) for name, way in JSON_WAYS.items()},
            **{f"sealed tensors: {name}": self._tensors(way) for name, way in TENSOR_WAYS.items()},
            "sealed tensors: lies of length": self._tensors(lie_about_length),
        }

    def write(self, place: Path) -> None:
        shutil.copytree(self.run, place / "run")

    def _newest(self, place: Path) -> Path:
        return place / "run" / "checkpoints" / "step-00000004"

    def _some_file(self, rng: random.Random, place: Path) -> Path:
        return rng.choice(sorted(self._newest(place).iterdir()))

    def _stray(self, rng: random.Random, place: Path) -> None:
        """Something in the folder of checkpoints that is none."""
        self.write(place)
        name = rng.choice(
            ("step-9", "step-99999999999999999999", "step-x", "step-00000004.partial", ".step-5.partial", "a\nb")
        )
        path = place / "run" / "checkpoints" / name
        rng.choice((path.mkdir, path.touch, lambda: path.symlink_to("step-00000004"), lambda: path.symlink_to(name)))()

    def _seal(self, place: Path, change: Callable[[dict[str, Any]], Any]) -> None:
        """The manifest of the newest checkpoint changed, with the sums of its files and the seal it asks for."""
        folder = self._newest(place)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest.pop("seal")
        for name in _PARTS:
            manifest["sha256"][name] = hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest()
        manifest = change(manifest)
        if isinstance(manifest, dict):
            manifest["seal"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))

    def _step(self, rng: random.Random, place: Path) -> None:
        self.write(place)
        self._seal(place, lambda manifest: {**manifest, "step": rng.choice(_STEPS)})

    def _manifest(self, way: Callable[[Any, random.Random], Any]) -> Write:
        return lambda rng, place: (self.write(place), self._seal(place, lambda manifest: way(manifest, rng)))

    def _manifest_text(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = self._newest(place) / "manifest.json"
            path.write_bytes(way(json.loads(path.read_text()), rng))

        return write

    def _tensors(self, way: Callable[..., Any]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            self.write(place)
            path = self._newest(place) / f"{rng.choice(_PARTS)}.safetensors"
            made = way(parse(path.read_bytes()), rng)
            path.write_bytes(made if isinstance(made, bytes) else made.data())
            self._seal(place, lambda manifest: manifest)

        return write

    def open(self, place: Path, way: str) -> str | None:
        run = place / "run"
        RunFolder(run).load_state(warn=lambda text: None)
        typed("train", "--resume", "--steps", 6, "-o", run, "-q")
        if "sealed" not in way:
            same = (run / "patch.safetensors").read_bytes() == self.sound
            return None if same else "the run went on to another patch"
        patch = load_patch(run / "patch.safetensors")
        if not all(tensor.isfinite().all() for tensor in patch.state_dict().values()):
            return "the run went on to a patch that is not finite"
        done = (patch.record.training or {}).get("steps_done") if patch.record else None
        return None if done == 6 else f"the patch says that {done} steps were done"
