"""The demo as commands that a user could type. ``dmp demo`` runs exactly these, and its page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import DemoOptions, NegativeOptions, default_of
from ..improvement import Negative, against

BASE, GUIDED = "base", "guided"
METHODS = {"full": "fine-tuned", "prompt-tuning": "prompt-tuned", "dmp": "DMP"}
_GUIDED_TITLE = "guided against a LoRA of its own samples"
_SCALE = 1.0  # W, taken as it is: dmp improve would choose it
_OWN = 3  # times as many own samples as images in a set
_NEGATIVE = Negative("lora", {name: default_of(NegativeOptions, name) for name in ("lr", "lora_rank")})


@dataclass(frozen=True)
class Story:
    """A demo in one folder: its budget, its files, and its commands in order."""

    folder: Path
    steps: int = default_of(DemoOptions, "steps")  # training steps of each method
    num_images: int = default_of(DemoOptions, "num_images")  # images in each set of samples
    ema: float = 0.999
    denoising_steps: int = 50
    seed: int = 0

    @property
    def digits(self) -> Path:
        """The folder of the embedded images, which --data takes."""
        return self.folder / "digits"

    def run(self, method: str) -> Path:
        """The run folder of a method."""
        return self.folder / "runs" / method

    def learnt(self, method: str, *, average: bool) -> Path:
        """The trained weights of a method, or their running average."""
        stem = "backbone" if method == "full" else "patch"
        return self.run(method) / f"{stem}{'-ema' if average else ''}.safetensors"

    def sets(self) -> dict[str, str]:
        """Every set of samples, base first: name of its folder -> its title in tables."""
        named = {BASE: BASE}
        for method, title in METHODS.items():
            named |= {method: f"{title}, as trained", f"{method}-ema": f"{title}, its EMA"}
        return {**named, GUIDED: _GUIDED_TITLE}

    def samples(self, name: str) -> Path:
        """The folder of one set of samples."""
        return self.folder / "samples" / name

    @property
    def own(self) -> Path:
        """The base's own samples, which the negative learns from."""
        return self.folder / "own"

    @property
    def before_after(self) -> Path:
        """The picture of the base and of the guided samples, from the same noise."""
        return self.folder / "before-after.png"

    @property
    def scores(self) -> Path:
        """The folder of the scores."""
        return self.folder / "scores"

    @property
    def side_by_side(self) -> Path:
        """The picture that shows images of every set, drawn from the same noise."""
        return self.folder / "side-by-side.png"

    @property
    def page(self) -> Path:
        """The page of results."""
        return self.folder / "index.html"

    @property
    def gates(self) -> Path:
        """The folder with pictures and numbers of the gates."""
        return self.folder / "gates"

    def train_commands(self) -> list[list[str]]:
        """One training command for each method. All methods see the same data, noise and timesteps."""
        data = ["--backbone", "digits", "--data", str(self.digits)]
        settings = ["--no-flip", "--steps", str(self.steps), "--ema", str(self.ema), "--seed", str(self.seed)]
        settings += ["--log-every", str(max(1, self.steps // 20)), "--save-every", str(self.steps), "--device", "cpu"]
        return [
            ["train", *data, "--method", method, *settings, "-o", str(self.run(method)), "--resume"]
            for method in METHODS
        ]

    def negative_commands(self) -> list[list[str]]:
        """Samples of the base, from other noise than all that are scored, and a small adapter that learns from them."""
        own = ["-n", str(_OWN * self.num_images), "--tar", *self._how(seed=self.seed + 1), "-o", str(self.own)]
        train = _NEGATIVE.train(
            ["--backbone", "digits"], own=self.own, run=self.run("negative"), seed=self.seed, steps=self.steps
        )
        return [["sample", "--backbone", "digits", *own], [*train, "--device", "cpu"]]

    def sample_commands(self) -> list[list[str]]:
        """One command for the base, two for each method (last weights, average), one for the guided samples.

        All use the same noise.
        """
        sources = {BASE: ["--backbone", "digits"]}
        for method in METHODS:
            kind = "--backbone" if method == "full" else "--patch"
            for average in (False, True):
                name = f"{method}-ema" if average else method
                sources[name] = [kind, str(self.learnt(method, average=average))]
        sources[GUIDED] = [*sources[BASE], *against(_NEGATIVE.learnt(self.run("negative")), _SCALE)]
        settings = ["-n", str(self.num_images), *self._how(seed=self.seed)]
        return [["sample", *source, *settings, "-o", str(self.samples(name))] for name, source in sources.items()]

    def _how(self, *, seed: int) -> list[str]:
        chunk = str(min(600, self.num_images))
        steps = ["--steps", str(self.denoising_steps), "--seed", str(seed)]
        return ["--batch-size", chunk, "--guidance", "1", *steps, "--grid", "6x10", "--device", "cpu"]

    def closing_commands(self) -> list[list[str]]:
        """The commands that score all sets against the real digits and draw the gates."""
        folders = [part for name in self.sets() for part in ("--samples", str(self.samples(name)))]
        against = ["--reference", str(self.digits), "--features", "digits"]
        return [
            ["eval", *folders, *against, "-o", str(self.scores), "--force", "--device", "cpu"],
            ["inspect-gates", "--patch", str(self.learnt("dmp", average=False)), "-o", str(self.gates), "--force"],
        ]
