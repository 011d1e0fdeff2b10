"""A search as commands that a user could type: those of a trial, and those of the final.

The final trains the winner and the defaults again, from seeds that no trial had, and measures both on images that no
trial saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import name_sampler
from ..evaluation import HIGHER_IS_BETTER
from ..improvement import in_arguments
from .ranges import Ranges

LOSS = "loss"
DIGITS = "digits"  # sub-folder of the embedded images, which are used if no data is given
_CHOOSING, _FINAL = "1/2", "2/2"  # parts of what is held out, and of the reference
_FINAL_DRAWS = "1"  # --val-seed of the final: other timesteps and noise than those that choose, which have 0


@dataclass(frozen=True)
class Tuning:
    """The settings of a search, the paths of its parts, and its commands."""

    folder: Path
    ranges: Ranges
    trials: int
    objective: str  # the held-out loss, or a score of samples
    backbone: Sequence[str]  # options that name the backbone, as typed
    data: Path
    held_out: Sequence[str]  # options of ``dmp train`` that hold images out, as typed
    final_held_out: Sequence[str] | None  # the same for the final; None: the second half of what is held out
    steps: int
    seed: int  # of all trials
    final_seeds: Sequence[int]
    draws: int  # of a measurement of the held-out loss
    prune: bool
    training: Mapping[str, Any]  # options of ``dmp train`` for all trials; those of a trial override them
    sampling: Sequence[str] = ()  # options of ``dmp sample``, as typed
    scoring: Sequence[str] = ()  # options of ``dmp eval``, as typed
    reference: Path | None = None  # what samples are scored against
    num_images: int = 0  # of a set of samples
    everywhere: Sequence[str] = ()  # options of every command, as typed
    precision: Sequence[str] = ()  # options of training and sampling, as typed; scores are always in float32
    grey: bool = False  # whether pictures with colours may be trained on as grey ones
    round_size: int | None = None  # trials that are proposed from earlier rounds alone; None: from all before

    @property
    def digits(self) -> Path:
        """The folder of the embedded images, which are used if no data is given."""
        return self.folder / DIGITS

    @property
    def journal(self) -> Path:
        """The journal of all trials."""
        return self.folder / "journal.jsonl"

    @property
    def every(self) -> int:
        """Steps between two measurements of the held-out loss: ten in a run."""
        return max(1, self.steps // 10)

    @property
    def sign(self) -> int:
        """What a value is multiplied by, so that lower is better."""
        return -1 if self.objective in HIGHER_IS_BETTER else 1

    def run(self, trial: int, final_seed: int | None = None) -> Path:
        """The run folder of a trial, or of its options trained again from a seed of the final."""
        if final_seed is None:
            return self.folder / "trials" / f"{trial:04d}"
        return self.folder / "final" / self.name(trial, final_seed)

    def name(self, trial: int, final_seed: int) -> str:
        """What a run of the final is called."""
        return f"{'defaults' if trial == 0 else f'trial-{trial:04d}'}-seed{final_seed}"

    def scores(self, trial: int, final_seed: int | None = None) -> Path:
        """The folder of the scores of a trial, or of the final for one seed, where the defaults are the first row."""
        name = f"{trial:04d}" if final_seed is None else f"trial-{trial:04d}-seed{final_seed}"
        return self.folder / "scores" / name

    def trial_commands(self, number: int, options: Mapping[str, Any]) -> list[list[str]]:
        """All commands of a trial, in order."""
        run = self.run(number)
        commands = [self._train(run, options, seed=self.seed, final=False)]
        if self.objective != LOSS:
            folder = self._samples(run)
            commands.append(self._sample(run, options, folder, seed=self.seed))
            commands.append(self._score([folder], self.scores(number), part=_CHOOSING))
        return commands

    def final_commands(self, number: int, options: Mapping[str, Any], seed: int) -> list[list[str]]:
        """The commands that train the options of a trial again from a seed of the final, and draw their samples."""
        run = self.run(number, seed)
        commands = [self._train(run, options, seed=seed, final=True)]
        if self.objective != LOSS:
            commands.append(self._sample(run, options, self._samples(run), seed=seed))
        return commands

    def final_scores(self, winner: int, seed: int) -> list[list[str]]:
        """The command that scores defaults and winner of one seed in pairs; none for the held-out loss."""
        if self.objective == LOSS:
            return []
        folders = [self._samples(self.run(trial, seed)) for trial in (0, winner)]
        return [self._score(folders, self.scores(winner, seed), part=_FINAL)]

    def use(self, options: Mapping[str, Any]) -> list[str]:
        """How the user trains with these options."""
        given = in_arguments({**self.training, **self.ranges.fixed, **options})
        budget = ["--steps", str(self.steps)]
        return ["train", *self.backbone, "--data", str(self.data), *budget, *given, *self.precision]

    def _samples(self, run: Path) -> Path:
        return self.folder / "samples" / run.relative_to(self.folder)

    def _train(self, run: Path, options: Mapping[str, Any], *, seed: int, final: bool) -> list[str]:
        where = ["--data", str(self.data), "-o", str(run), "--resume"]
        budget = ["--steps", str(self.steps), "--seed", str(seed)]
        often = ["--keep", "1", "--sample-every", "0", "--log-every", str(max(1, self.steps // 20))]
        saves = ["--save-every", str(max(1, self.steps // 5))]
        given = in_arguments({**self.training, **self.ranges.fixed, **options})
        measures = [*self._images(final=final), "--val-draws", str(self.draws)]
        measures += ["--val-every", str(self.steps if final else self.every)]
        measures += ["--val-seed", _FINAL_DRAWS, "--val-losses"] if final else []
        grey = ["--grey"] if self.grey else []
        return ["train", *self.backbone, *where, *budget, *often, *saves, *given, *measures, *grey, *self._always()]

    def _images(self, *, final: bool) -> list[str]:
        """The options that say on which images the loss is measured."""
        if self.final_held_out is not None:
            return [*(self.final_held_out if final else self.held_out)]
        return [*self.held_out, "--val-part", _FINAL if final else _CHOOSING]

    def _sample(self, run: Path, options: Mapping[str, Any], folder: Path, *, seed: int) -> list[str]:
        how = ["-n", str(self.num_images), *name_sampler(self.sampling), "--seed", str(seed), "-o", str(folder)]
        return ["sample", *self._learnt(run, options), *how, *self._always()]

    def _learnt(self, run: Path, options: Mapping[str, Any]) -> list[str]:
        given = {**self.training, **self.ranges.fixed, **options}
        average = "-ema" if given.get("ema") else ""
        if given.get("method") == "lora":
            return [*self.backbone, "--adapter", str(run / f"adapter{average}")]
        if given.get("method") in ("full", "scratch"):
            return ["--backbone", str(run / f"backbone{average}.safetensors")]
        return ["--patch", str(run / f"patch{average}.safetensors")]

    def _score(self, folders: Sequence[Path], place: Path, *, part: str) -> list[str]:
        sets = [word for folder in folders for word in ("--samples", str(folder))]
        half = ["--reference", str(self.reference), "--reference-part", part, "--metrics", self.objective]
        return ["eval", *sets, *half, *self.scoring, "-o", str(place), "--force", *self.everywhere]

    def _always(self) -> list[str]:
        return [*self.precision, *self.everywhere]
