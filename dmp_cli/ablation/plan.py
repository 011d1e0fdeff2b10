"""An ablation as commands that a user could type, in an order that repeats no work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ImproveOptions, default_of, name_sampler
from ..improvement import EMA, Negative, against, in_arguments, read_choice
from .arms import OWN, Arm

BASE = "base"
_NOT_OWN = (OWN, "method", "flip", "ema", "save_every", "steps")  # options that the negative sets itself
_CHOOSING, _LEARNING = 1_000_000, 2_000_000  # added to a seed for the samples that choose a scale, that are learnt from
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
    scales: Sequence[float] = default_of(
        ImproveOptions, "scales"
    )  # W to choose from, for arms that are sampled against

    @property
    def digits(self) -> Path:
        """The folder of the embedded images, which are used if no data is given."""
        return self.folder / DIGITS

    def steps_of(self, arm: Arm) -> list[int]:
        """The training steps at which an arm is scored, in order."""
        points = 1 if arm.decays or arm.own_samples is not None else self.points
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

    def choice(self, arm: Arm, seed: int) -> Path:
        """The folder of the samples and scores that choose the scale of an arm for one seed."""
        return self.folder / "choice" / f"{arm.name}-seed{seed}"

    def scale(self, arm: Arm, seed: int) -> float | None:
        """The scale that was chosen, 0 where none is better than the base; None: it is not chosen yet."""
        scores = self.choice(arm, seed) / "scores"
        if not (scores / "report.json").exists():
            return None
        return read_choice(scores, self.scales).scale or 0.0

    def chosen_by(self) -> dict[Path, Path]:
        """The samples whose scale is chosen -> the scores that choose it, which their command does not name."""
        return {
            self.samples(arm.name, seed, self.steps): self.choice(arm, seed) / "scores"
            for arm in self.arms
            for seed in self.seeds
            if arm.own_samples is not None
        }

    def commands(self) -> list[list[str]]:
        """All commands in order. To continue an interrupted command, run it again.

        A scale that is not chosen yet is written as W.
        """
        found: list[list[str]] = []
        for seed in self.seeds:
            found.append(self._sample([*self.backbone], self.samples(BASE, seed), seed))
            for arm in self.arms:
                if arm.own_samples is not None:
                    found += self._guided(arm, seed, arm.own_samples, known=found)
                    continue
                for step in self.steps_of(arm):
                    found.append(self._train(arm, seed, step))
                    found.append(self._sample(self._learnt(arm, seed), self.samples(arm.name, seed, step), seed))
            found.append(self._score([*self.sets(seed)], self.scores(seed), known=found))
        return found

    def _guided(self, arm: Arm, seed: int, count: int, *, known: Sequence[list[str]]) -> list[list[str]]:
        """The commands of an arm that learns from the backbone's own samples and is sampled against.

        Its scale is chosen by samples of a seed of its own. Commands that an earlier arm has ``known`` are left out.
        """
        own, base = self.samples("own", seed) / str(count), self.samples("choosing", seed)
        options = {key: value for key, value in {**self.training, **arm.options}.items() if key not in _NOT_OWN}
        negative, run = Negative(arm.method, options, ema=arm.options.get("ema", EMA)), self.run(arm, seed)
        train = negative.train(self.backbone, own=own, run=run, seed=seed, steps=self.steps)
        version, choosing = negative.learnt(run), seed + _CHOOSING
        found = [
            self._sample([*self.backbone, "--tar"], own, seed + _LEARNING, count=count),
            [*train, *self.precision, *self.everywhere],
            self._sample([*self.backbone], base, choosing),
        ]
        folders = [base]
        for scale in self.scales:
            folders.append(self.choice(arm, seed) / f"W{scale:g}")
            found.append(self._sample([*self.backbone, *against(version, scale)], folders[-1], choosing))
        found.append(self._score(folders, self.choice(arm, seed) / "scores", known=known))
        chosen = [*self.backbone, *against(version, self.scale(arm, seed))]
        found.append(self._sample(chosen, self.samples(arm.name, seed, self.steps), seed))
        return [command for command in found if command not in known]

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
        if arm.method in ("lora", "dora"):
            return [*self.backbone, "--adapter", str(run / f"adapter{average}")]
        if arm.method in ("bitfit", "difffit"):
            return [*self.backbone, "--adapter", str(run / f"tuned{average}.safetensors")]
        if arm.method in ("full", "scratch"):
            return ["--backbone", str(run / f"backbone{average}.safetensors")]
        return ["--patch", str(run / f"patch{average}.safetensors")]

    def _sample(self, source: list[str], folder: Path, seed: int, *, count: int | None = None) -> list[str]:
        how = [
            "-n",
            str(count or self.num_images),
            *name_sampler(self.sampling),
            "--seed",
            str(seed),
            "-o",
            str(folder),
        ]
        return ["sample", *source, *how, *self.precision, *self.everywhere]

    def _score(self, folders: Sequence[Path], place: Path, *, known: Sequence[list[str]]) -> list[str]:
        """Score sets of samples. The first of all such commands keeps the reference's statistics for the others."""
        sets = [word for folder in folders for word in ("--samples", str(folder))]
        measured = self.reference.suffix == ".npz" or any("kid" in option for option in self.scoring)
        is_first = not any(command[0] == "eval" for command in known)
        reference = self.reference if measured or is_first else self.statistics
        keep = ["--save-stats", str(self.statistics)] if is_first and not measured else []
        against = ["--reference", str(reference), *keep]
        return ["eval", *sets, *against, *self.scoring, "-o", str(place), "--force", *self.everywhere]
