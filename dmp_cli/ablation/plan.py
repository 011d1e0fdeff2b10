"""An ablation as commands that a user could type, in an order that repeats no work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..improvement import in_arguments
from .arms import Arm

BASE = "base"
DIGITS = "digits"  # sub-folder of the embedded images, which are used if no data is given


@dataclass(frozen=True)
class Plan:
    """The settings of an ablation, the paths of its parts, and its commands."""

    folder: Path
    arms: Sequence[Arm]
    backbone: Sequence[str]  # options that name the backbone, as typed
    data: Path
    reference: Path
    steps: int  # training steps of every arm
    points: int  # how often an arm is scored during training, the last time at ``steps``
    seeds: Sequence[int]  # of training and sampling; every arm samples from the same noise for one seed
    num_images: int  # images in each set of samples
    training: Mapping[str, Any]  # options of ``dmp train`` for all arms; those of an arm override them
    sampling: Sequence[str]  # options of ``dmp sample``, as typed
    scoring: Sequence[str]  # options of ``dmp eval``, as typed
    everywhere: Sequence[str]  # options of every command, as typed
    precision: Sequence[str] = ()  # options of training and sampling, as typed; scores are always in float32
    grey: bool = False  # whether pictures with colours may be trained on as grey ones

    @property
    def digits(self) -> Path:
        """The folder of the embedded images, which are used if no data is given."""
        return self.folder / DIGITS

    def steps_of(self, arm: Arm) -> list[int]:
        """The training steps at which an arm is scored, in order."""
        points = 1 if arm.decays else self.points
        return sorted({max(1, round(self.steps * (point + 1) / points)) for point in range(points)})

    def run(self, arm: Arm, seed: int) -> Path:
        """The run folder of an arm for one seed."""
        return self.folder / "runs" / f"{arm.name}-seed{seed}"

    def samples(self, name: str, seed: int, step: int | None = None) -> Path:
        """The folder of samples of the base, or of an arm after ``step`` training steps."""
        return self.folder / "samples" / (f"{name}-seed{seed}" + ("" if step is None else f"-step{step}"))

    def scores(self, seed: int) -> Path:
        """The folder with the scores of all sets of samples of one seed."""
        return self.folder / "scores" / f"seed{seed}"

    @property
    def statistics(self) -> Path:
        """The file of the statistics of the reference, which is measured only once."""
        return self.folder / "scores" / "reference.npz"

    def sets(self, seed: int) -> dict[Path, tuple[str, int]]:
        """Every set of samples of a seed, base first: its folder -> (name of base or arm, training step)."""
        found = {self.samples(BASE, seed): (BASE, 0)}
        for arm in self.arms:
            found |= {self.samples(arm.name, seed, step): (arm.name, step) for step in self.steps_of(arm)}
        return found

    def commands(self) -> list[list[str]]:
        """All commands in order. To continue an interrupted command, run it again."""
        found: list[list[str]] = []
        for seed in self.seeds:
            found.append(self._sample([*self.backbone], self.samples(BASE, seed), seed))
            for arm in self.arms:
                for step in self.steps_of(arm):
                    found.append(self._train(arm, seed, step))
                    found.append(self._sample(self._learnt(arm, seed), self.samples(arm.name, seed, step), seed))
            found.append(self._score(seed))
        return found

    def _train(self, arm: Arm, seed: int, step: int) -> list[str]:
        options = {**self.training, **arm.options}
        where = ["--data", str(self.data), "-o", str(self.run(arm, seed)), "--resume"]
        intervals = ["--keep", "1", "--sample-every", "0", "--log-every", str(max(1, self.steps // 20))]
        saves = [] if "save_every" in options else ["--save-every", str(max(1, self.steps // self.points))]
        budget = ["--steps", str(step), "--seed", str(seed)]
        return [
            "train",
            *self.backbone,
            *where,
            *budget,
            *intervals,
            *saves,
            *in_arguments(options),
            *(["--grey"] if self.grey else []),
            *self.precision,
            *self.everywhere,
        ]

    def _learnt(self, arm: Arm, seed: int) -> list[str]:
        run, average = self.run(arm, seed), "-ema" if arm.averages else ""
        if arm.method == "lora":
            return [*self.backbone, "--adapter", str(run / f"adapter{average}")]
        if arm.method in ("full", "scratch"):
            return ["--backbone", str(run / f"backbone{average}.safetensors")]
        return ["--patch", str(run / f"patch{average}.safetensors")]

    def _sample(self, source: list[str], folder: Path, seed: int) -> list[str]:
        how = ["-n", str(self.num_images), *self.sampling, "--seed", str(seed), "-o", str(folder)]
        return ["sample", *source, *how, *self.precision, *self.everywhere]

    def _score(self, seed: int) -> list[str]:
        folders = [part for folder in self.sets(seed) for part in ("--samples", str(folder))]
        measured = self.reference.suffix == ".npz" or any("kid" in option for option in self.scoring)
        if measured or seed == self.seeds[0]:
            against = ["--reference", str(self.reference)]
        else:
            against = ["--reference", str(self.statistics)]
        keep = [] if measured or seed != self.seeds[0] else ["--save-stats", str(self.statistics)]
        place = ["-o", str(self.scores(seed)), "--force"]
        return ["eval", *folders, *against, *keep, *self.scoring, *place, *self.everywhere]
