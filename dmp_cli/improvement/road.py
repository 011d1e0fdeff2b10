"""The whole way to a better model, as commands that a user could type.

Samples of the backbone, a negative that learns from them, samples at each scale that choose the scale by one half of
the reference, and samples of other seeds that are scored by the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import name_sampler
from .negative import Negative, against

_CHOOSING, _SCORING = "1/2", "2/2"  # parts of the reference


@dataclass(frozen=True)
class Road:
    """The settings of an improvement, the paths of its parts, and its commands in order."""

    folder: Path
    backbone: Sequence[str]  # options that name the backbone, as typed
    reference: Path
    negative: Negative
    own_samples: int
    steps: int  # of the negative's training
    num_images: int  # in each set that is scored
    scales: Sequence[float]  # W to choose from, rising
    seed: int  # of the own samples and of training
    choose_seed: int
    score_seed: int
    sampling: Sequence[str] = ()  # options of ``dmp sample``, as typed
    own: Sequence[str] = ()  # options of ``dmp sample`` for the own samples alone, as typed
    scoring: Sequence[str] = ()  # options of ``dmp eval``, as typed
    everywhere: Sequence[str] = ()  # options of every command, as typed
    precision: Sequence[str] = ()  # options of training and sampling, as typed; scores are always in float32

    @property
    def digits(self) -> Path:
        """The folder of the embedded images, which are used if no reference is given."""
        return self.folder / "digits"

    @property
    def own_folder(self) -> Path:
        """The samples that the negative learns from."""
        return self.folder / "own"

    @property
    def version(self) -> Path:
        """What is sampled against."""
        return self.negative.learnt(self.folder / "negative")

    def samples(self, *, chosen: bool, scale: float | None) -> Path:
        """A folder of samples: to choose the scale, or to score the ``chosen`` one; scale None is the backbone."""
        return self.folder / ("result" if chosen else "choice") / ("base" if scale is None else f"W{scale:g}")

    def scores(self, *, chosen: bool) -> Path:
        """The folder of scores that choose, or of those of the result."""
        return self.folder / ("scores" if chosen else "choice/scores")

    def first_commands(self) -> list[list[str]]:
        """All commands until the scale can be chosen."""
        own = ["-n", str(self.own_samples), *self.own]
        return [
            self._sample(self.own_folder, own, seed=self.seed),
            [*self._train(), *self.precision, *self.everywhere],
            *self._sets(chosen=False, scales=self.scales),
        ]

    def last_commands(self, scale: float | None) -> list[list[str]]:
        """The commands that score the chosen scale; None: it is not known yet."""
        return self._sets(chosen=True, scales=[scale])

    def use(self, scale: float) -> list[str]:
        """How the user samples from now on."""
        return ["sample", *self.backbone, *against(self.version, scale), *name_sampler(self.sampling)]

    def _train(self) -> list[str]:
        where = {"own": self.own_folder, "run": self.folder / "negative"}
        return self.negative.train(self.backbone, **where, seed=self.seed, steps=self.steps)

    def _sets(self, *, chosen: bool, scales: Sequence[float | None]) -> list[list[str]]:
        """The backbone and each scale sampled from the same noise, and all of them scored."""
        seed = self.score_seed if chosen else self.choose_seed
        count = ["-n", str(self.num_images)]
        base = self.samples(chosen=chosen, scale=None)
        commands, folders = [self._sample(base, count, seed=seed)], [base]
        for scale in scales:
            folder = self.folder / "result" / "W" if scale is None else self.samples(chosen=chosen, scale=scale)
            commands.append(self._sample(folder, [*against(self.version, scale), *count], seed=seed))
            folders.append(folder)
        return [*commands, self._score(folders, chosen=chosen)]

    def _sample(self, folder: Path, options: Sequence[str], *, seed: int) -> list[str]:
        how = [*name_sampler(self.sampling), "--seed", str(seed), "-o", str(folder)]
        return ["sample", *self.backbone, *options, *how, *self.precision, *self.everywhere]

    def _score(self, folders: Sequence[Path], *, chosen: bool) -> list[str]:
        sets = [word for folder in folders for word in ("--samples", str(folder))]
        half = ["--reference", str(self.reference), "--reference-part", _SCORING if chosen else _CHOOSING]
        place = ["-o", str(self.scores(chosen=chosen)), "--force"]
        return ["eval", *sets, *half, *self.scoring, *place, *self.everywhere]
