"""What a person writes: option files, arms, sizes, plans and prompts; and the records of an ablation and of a demo."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dmp_cli.ablation import AblationFolder, Arm, Plan
from dmp_cli.commands.demo import _claim
from dmp_cli.demo import Story

from ..cases import Kind
from ..commands import typed
from ..damage import DAMAGES
from ..forged_json import JSON_WAYS
from ..sound import Write, make_samples

_CONFIG = b'steps = 3\nguidance = 1.5\nclasses = "0,1"\n\n[sample]\nsampler = "ddim"\nnum-images = 2\n'
_ARMS = b'ema = 0.5\n\n[[arm]]\nname = "plain"\ntitle = "a"\n\n[[arm]]\nname = "tuned"\nmethod = "full"\nlr = 0.1\n'
_PROMPTS = b"a fox --d 3 --l 2.5\n\na bird --n blurry\n"
_PLAN = b'{"class": 1, "seed": 3, "guidance": 2.0}\n{"class": 0}\n'
_VALUES = (
    "1" * 5000,
    "-1",
    "1e400",
    "nan",
    "inf",
    "[]",
    "[[[]]]",
    "{}",
    "{a = 1}",
    '"\\u0000"',
    '""',
    "true",
    "1979-05-27",
    "'x'",
    "10" * 30,
)
_TEXTS = (
    b"a = " + b"[" * 100_000,
    b"[" * 9000,
    b"a." * 50_000 + b"b = 1",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbfsteps = 3",
    b"x = 1\nx = 2",
    b"[a]\n[a]",
)
_TEXTS += (
    b"steps",
    b"= 3",
    b"[[arm]]",
    b"[arm]",
    b"arm = 3",
    b"arm = [3]",
    b"arm = [[]]",
    b'"" = 1',
    b'"a\\nb" = 1',
    b"[sample]\n[sample.x]\ny=1",
)
_PROMPT_LINES = (
    b"--d",
    b"a --d x",
    b"a --d -1",
    b"a --d 1e9",
    b"a --d " + b"9" * 5000,
    b"a --l nan",
    b"a --l inf",
    b"--n",
    b"a --n",
    b"a\0b",
    b"\xff",
    b"",
    b"x" * 5_000_000,
)
_PROMPT_LINES += (
    b"a --x 3",
    b"a --d 3 --d 4",
    b"--d 3",
    b"a --l",
    "a \u2028 b".encode(),
    b"\xed\xa0\x80",
    b"a --l 1e999",
    b"#",
)


class Configs(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.options, _ = make_samples(base)  # the first samples import libraries, which takes seconds
        self.patch = self.options[:2]
        self.network = ["--backbone", base / "tiny.pt", "--num-classes", 4, "--num-heads", 2]
        shared: dict[str, Any] = {
            "backbone": ["b"],
            "data": Path("d"),
            "reference": Path("d"),
            "training": {},
            "sampling": [],
        }
        more: dict[str, Any] = {
            "steps": 10,
            "points": 2,
            "seeds": [0],
            "num_images": 7,
            "scoring": [],
            "everywhere": [],
        }
        self.plan = Plan(folder=base / "ablation", arms=[Arm("dmp", "DMP")], **shared, **more)
        AblationFolder(self.plan, {"data": "x"}).claim(force=False)
        self.sizes = {"input_size": 8, "patch_size": 2, "in_channels": 3, "hidden_size": 16, "depth": 3, "num_heads": 2}
        self.sizes |= {"mlp_size": 32, "num_classes": 4}
        story = {
            key: str(value) if isinstance(value, Path) else value for key, value in asdict(Story(Path("demo"))).items()
        }
        about = json.loads((base / "ablation" / "ablation.json").read_text())
        lines = [json.loads(line) for line in _PLAN.splitlines()]
        self.ways: dict[str, Write] = {
            **self._texts("config.toml", _CONFIG),
            **self._texts("arms.toml", _ARMS),
            **self._texts("prompts.txt", _PROMPTS),
            **self._texts("plan.jsonl", _PLAN),
            **{
                f"plan.jsonl, a line: {name}": self._json("plan.jsonl", lines[0], way)
                for name, way in JSON_WAYS.items()
            },
            **{f"sizes.json: {name}": self._json("sizes.json", self.sizes, way) for name, way in JSON_WAYS.items()},
            **{f"ablation.json: {name}": self._json("ablation.json", about, way) for name, way in JSON_WAYS.items()},
            **{
                f"done.json: {name}": self._json("done.json", ["sample x", "train y"], way)
                for name, way in JSON_WAYS.items()
            },
            **{f"demo.json: {name}": self._json("demo.json", story, way) for name, way in JSON_WAYS.items()},
            "config.toml, a value": self._value("config.toml", _CONFIG),
            "arms.toml, a value": self._value("arms.toml", _ARMS),
            "toml": lambda rng, place: (place / rng.choice(("config.toml", "arms.toml"))).write_bytes(
                rng.choice(_TEXTS)
            ),
            "prompts": lambda rng, place: (place / "prompts.txt").write_bytes(b"a fox\n" + rng.choice(_PROMPT_LINES)),
            "pipe": lambda rng, place: os.mkfifo(
                place / rng.choice(("config.toml", "arms.toml", "prompts.txt", "plan.jsonl"))
            ),
        }

    def _texts(self, name: str, sound: bytes) -> dict[str, Write]:
        return {f"{name}, {way}": self._bytes(name, sound, damage) for way, damage in DAMAGES.items()}

    def _bytes(self, name: str, sound: bytes, way: Callable[[bytes, random.Random], bytes]) -> Write:
        return lambda rng, place: (place / name).write_bytes(way(sound, rng))

    def _json(self, name: str, value: Any, way: Callable[[Any, random.Random], bytes]) -> Write:
        return lambda rng, place: (place / name).write_bytes(way(value, rng))

    def _value(self, name: str, sound: bytes) -> Write:
        """One value of a TOML file replaced by one of another type or size."""

        def write(rng: random.Random, place: Path) -> None:
            lines = sound.splitlines()
            at = rng.choice([number for number, line in enumerate(lines) if b"=" in line])
            lines[at] = lines[at].split(b"=")[0] + b"= " + rng.choice(_VALUES).encode()
            (place / name).write_bytes(b"\n".join(lines) + b"\n")

        return write

    def write(self, place: Path) -> None:
        (place / "config.toml").write_bytes(_CONFIG)

    def open(self, place: Path, way: str) -> str | None:
        (path,) = place.iterdir()
        if path.name == "config.toml":
            typed("sample", *self.patch, "--config", path, "--dry-run", "--json")
        elif path.name == "arms.toml":
            data = ["--data", self.base / "images", "--steps", 4, "-n", 4]
            typed("ablate", path, *self.network, *data, "-o", place / "out", "--dry-run", "--features", "pixels")
        elif path.name in ("prompts.txt", "plan.jsonl"):
            typed("sample", *self.patch, *self.options[4:], f"--{path.stem}", path, "-o", place / "out")
        elif path.name == "sizes.json":
            typed("patch", "--backbone", path, "-q")
        elif path.name == "demo.json":
            _claim(Story(place), force=False)
        else:
            self._ablation(path, place)
        return None

    def _ablation(self, path: Path, place: Path) -> None:
        folder = place / "out"
        shutil.copytree(self.plan.folder, folder)
        shutil.copy(path, folder / path.name)
        plan = Plan(**{**vars(self.plan), "folder": folder})
        owned = AblationFolder(plan, {"data": "x"})
        owned.claim(force=False)
        list(owned.commands())
