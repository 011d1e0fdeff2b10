"""What ``dmp demo`` does, as the commands a user would type: the page it ends with shows exactly these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BASE = "base"
METHODS = {"full": "fine-tuned", "prompt-tuning": "prompt-tuned", "dmp": "DMP"}


@dataclass(frozen=True)
class Story:
    """The demo in one folder: its budget, and the commands that spend it."""

    folder: Path
    steps: int = 2000  # of each further training
    num_images: int = 1797  # of each set of samples: as many as there are real digits
    ema: float = 0.999
    denoising_steps: int = 50
    seed: int = 0

    @property
    def digits(self) -> Path:
        """The embedded images, as the folder --data takes."""
        return self.folder / "digits"

    def run(self, method: str) -> Path:
        """The run folder of a method."""
        return self.folder / "runs" / method

    def learnt(self, method: str, *, average: bool) -> Path:
        """The file a method leaves."""
        stem = "backbone" if method == "full" else "patch"
        return self.run(method) / f"{stem}{'-ema' if average else ''}.safetensors"

    def sets(self) -> dict[str, str]:
        """Folder name of every set of samples -> what it is called in tables, base first."""
        named = {BASE: BASE}
        for method, title in METHODS.items():
            named |= {method: f"{title}, as trained", f"{method}-ema": f"{title}, its EMA"}
        return named

    def samples(self, name: str) -> Path:
        """The folder of one set of samples."""
        return self.folder / "samples" / name

    @property
    def scores(self) -> Path:
        """The folder of the scores."""
        return self.folder / "scores"

    @property
    def side_by_side(self) -> Path:
        """The picture of the same noise through each set."""
        return self.folder / "side-by-side.png"

    @property
    def page(self) -> Path:
        """The page it all ends with."""
        return self.folder / "index.html"

    @property
    def gates(self) -> Path:
        """The folder of the gates' pictures and numbers."""
        return self.folder / "gates"

    def train_commands(self) -> list[list[str]]:
        """A further training per method, all through the same data, noise and timesteps."""
        recipe = ["--no-flip", "--steps", str(self.steps), "--ema", str(self.ema), "--seed", str(self.seed)]
        data = ["--data", str(self.digits)]
        recipe += ["--log-every", str(max(1, self.steps // 20)), "--save-every", str(self.steps), "--device", "cpu"]
        return [
            [
                "train",
                "--backbone",
                "digits",
                *data,
                "--method",
                method,
                *recipe,
                "-o",
                str(self.run(method)),
                "--resume",
            ]
            for method in METHODS
        ]

    def sample_commands(self) -> list[list[str]]:
        """A set of samples of the base and of each method, as trained and averaged, all from the same noise."""
        sources = {BASE: ["--backbone", "digits"]}
        for method in METHODS:
            kind = "--backbone" if method == "full" else "--patch"
            for average in (False, True):
                name = f"{method}-ema" if average else method
                sources[name] = [kind, str(self.learnt(method, average=average))]
        how = ["-n", str(self.num_images), "--batch-size", str(min(600, self.num_images)), "--guidance", "1"]
        how += ["--steps", str(self.denoising_steps), "--seed", str(self.seed), "--grid", "6x10", "--device", "cpu"]
        return [["sample", *source, *how, "-o", str(self.samples(name))] for name, source in sources.items()]

    def closing_commands(self) -> list[list[str]]:
        """Scores of all sets against the real digits, and a look at the gates."""
        folders = [part for name in self.sets() for part in ("--samples", str(self.samples(name)))]
        against = ["--reference", str(self.digits), "--features", "digits", "--bootstrap", "20"]
        return [
            ["eval", *folders, *against, "-o", str(self.scores), "--force", "--device", "cpu"],
            ["inspect-gates", "--patch", str(self.learnt("dmp", average=False)), "-o", str(self.gates), "--force"],
        ]
