"""The version to sample against: one that has learnt from samples of the backbone itself, and so its mistakes.

Training on its own samples drives a network further away from real images (SIMS, Alemohammad et al. 2024). So the way
back, from that version over the backbone, leads towards them: a + W (a - b).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EMA = 0.999  # the average of the last thousand steps is sampled against, as it depends less on the last batches
_LEARNT = {
    **dict.fromkeys(("lora", "dora"), "adapter{}"),
    **dict.fromkeys(("bitfit", "difffit"), "tuned{}.safetensors"),
    "full": "backbone{}.safetensors",
}


@dataclass(frozen=True)
class Negative:
    """How a version is made that is sampled against."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of ``dmp train``, by name
    ema: float = EMA  # decay of the running average, which is what is sampled against; 0: of the last weights

    def train(self, backbone: Sequence[str], *, own: Path, run: Path, seed: int, steps: int) -> list[str]:
        """The command that trains it in ``run`` on the samples in ``own``.

        Images are not mirrored: the negative has to learn samples as the backbone makes them.
        """
        settings = ["--method", self.method, "--steps", str(steps), *in_arguments(self.options)]
        how = ["--no-flip", "--ema", str(self.ema), "--seed", str(seed), "--sample-every", "0", "--keep", "1"]
        often = ["--log-every", str(max(1, steps // 20)), "--save-every", str(max(1, steps // 4))]
        return ["train", *backbone, "--data", str(own), *settings, *how, *often, "-o", str(run), "--resume"]

    def learnt(self, run: Path) -> Path:
        """What ``--against`` takes, once the training in ``run`` is done."""
        return run / _LEARNT.get(self.method, "patch{}.safetensors").format("-ema" if self.ema else "")


def against(version: Path, scale: float | None) -> list[str]:
    """The options of ``dmp sample`` that lead away from ``version``; a scale that is not yet known is written as W."""
    return ["--against", str(version), "--against-scale", "W" if scale is None else f"{scale:g}"]


def in_arguments(options: Mapping[str, Any]) -> list[str]:
    """Write options as they are typed: true and false as --flag and --no-flag, lists with commas."""
    typed: list[str] = []
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            typed.append(f"--{option}" if value else f"--no-{option}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            typed += [f"--{option}", text]
    return typed
