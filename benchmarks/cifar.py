"""``dmp improve`` on real pictures: CIFAR-10 at 16x16 pixels. ``python -m benchmarks.cifar ZIP -o DIR``.

A small DiT learns the 50,000 training pictures. ``dmp improve`` then samples it against a LoRA and against a DMP patch
of its own samples, and a DMP patch of the real pictures is sampled with, as the paper does. The 10,000 test pictures
are the reference. Run it again to continue where it stopped.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from .cifar_classifier import make_features
from .cifar_pictures import SIDE, write_pictures

SIZES = {
    **{"input_size": SIDE, "patch_size": 4, "in_channels": 3, "hidden_size": 64, "depth": 4, "num_heads": 4},
    **{"mlp_size": 256, "num_classes": 10, "null_row": True, "learn_sigma": False},
}
METHODS = {"lora": "LoRA", "dmp": "DMP patch"}  # negatives
BATCH, LR, EMA = 128, 1e-3, 0.999
SCORE_SEED = 2  # of the samples that dmp improve scores in the end
DRAWING, ROWS = 50, 500  # denoising steps, and images of one chunk


class Budget(NamedTuple):
    """How much is trained and drawn."""

    epochs: int  # of the classifier
    base_steps: int
    steps: int  # of each negative, and of the patch of real pictures
    own_samples: int
    num_images: int  # of every set that is scored
    scales: str


class Experiment:
    """The folder of the experiment, its steps in order, and the processor time that each one took."""

    def __init__(self, folder: Path, archive: Path, budget: Budget) -> None:
        self.folder, self.archive, self.budget = folder, archive, budget
        self.pictures, self.features = folder / "pictures", folder / "features.pt"
        self.base = folder / "base" / "backbone-ema.safetensors"
        self.patch = folder / "real" / "patch-ema.safetensors"
        self.records = folder / "steps.json"

    def run(self) -> None:
        """Do every step that is not done. Raises SystemExit for a folder of another budget."""
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = self.folder / "budget.json"
        if asked.exists() and json.loads(asked.read_text()) != self.budget._asdict():
            raise SystemExit(f"{self.folder} holds an experiment of another budget: give another folder with -o")
        asked.write_text(json.dumps(self.budget._asdict()))
        (self.folder / "sizes.json").write_text(json.dumps(SIZES))
        self._step("pictures", lambda: write_pictures(self.archive, self.pictures))
        self._step("classifier", lambda: make_features(self.pictures, self.features, epochs=self.budget.epochs))
        for name, command in self.commands().items():
            self._step(name, partial(dmp, command))
        self._step("scores", lambda: dmp(self.score()))

    def commands(self) -> dict[str, list[str]]:
        """The commands before the last one, each with its name."""
        base = [*train("scratch", self.pictures / "train", self.budget.base_steps), "--lr-schedule", "cosine"]
        sizes = ["--backbone", str(self.folder / "sizes.json"), "--vae", "none", "-o", str(self.base.parent)]
        real = [*train("dmp", self.pictures / "train", self.budget.steps), "--gate-lr", f"{LR:g}"]
        network = ["--backbone", str(self.base)]
        draw = ["sample", *network, "-n", str(self.budget.num_images), "--steps", str(DRAWING), "--guidance", "1"]
        draw += ["--batch-size", str(ROWS), "--seed", str(SCORE_SEED)]
        return {
            "base": [*base, *sizes],
            **{f"improve {method}": self.improve(method) for method in METHODS},
            "real": [*real, *network, "-o", str(self.patch.parent)],
            "base samples": [*draw, "-o", str(self.samples("base"))],
            "real samples": [*draw, "--patch", str(self.patch), "-o", str(self.samples("real"))],
        }

    def improve(self, method: str) -> list[str]:
        """``dmp improve`` with its own budget of training, and that of this experiment elsewhere."""
        budget = ["--own-samples", str(self.budget.own_samples), "--steps", str(self.budget.steps)]
        sets = ["-n", str(self.budget.num_images), "--scales", self.budget.scales]
        drawing = ["--sampling-steps", str(DRAWING), "--sample-batch-size", str(ROWS)]
        scoring = ["--reference", str(self.pictures / "test"), "--features", str(self.features), "--metrics", "fid,prc"]
        place = ["--backbone", str(self.base), "-o", str(self.folder / method)]
        return ["improve", "--method", method, *place, *budget, *sets, *drawing, *scoring]

    def score(self) -> list[str]:
        """``dmp eval`` of all results on the half of the reference that chose no scale; the first set is the base's."""
        sets = [self.samples("base"), *(path for _, path in self.results())]
        given = [word for path in sets for word in ("--samples", str(path))]
        half = ["--reference", str(self.pictures / "test"), "--reference-part", "2/2"]
        how = ["--features", str(self.features), "--metrics", "fid,prc", "--bootstrap", "20"]
        return ["eval", *given, *half, *how, "-o", str(self.folder / "scores"), "--force"]

    def results(self) -> Iterator[tuple[str, Path]]:
        """Each way to sample with its samples; a negative without a scale that is better than none has no samples."""
        for method in METHODS:
            if self.chosen(method) is not None:
                yield method, self.samples(method)
        yield "real", self.samples("real")

    def samples(self, name: str) -> Path:
        """The samples that are scored: ``base``, ``real``, or those against the negative of a method."""
        if name in METHODS:
            return self.folder / name / "result" / f"W{self.chosen(name):g}"
        return self.folder / f"{name}-samples"

    def improved(self, method: str) -> dict[str, Any]:
        """The result.json of ``dmp improve``."""
        found: dict[str, Any] = json.loads((self.folder / method / "result.json").read_text())
        return found

    def chosen(self, method: str) -> float | None:
        """The scale W that was chosen."""
        scale: float | None = self.improved(method)["scale"]
        return scale

    def done(self) -> dict[str, Any]:
        """Processor minutes and the answer of each step; one that an error or a kill by Ctrl-C ended has no answer."""
        return json.loads(self.records.read_text()) if self.records.exists() else {}

    def _step(self, name: str, work: Callable[[], Any]) -> None:
        done = self.done()
        known = done.get(name, {"minutes": 0.0})
        if "answer" in known:
            return
        before, start = _processor_seconds(), time.perf_counter()
        try:
            known = {**known, "answer": work()}
        finally:
            known["minutes"] += (_processor_seconds() - before) / 60
            self.records.write_text(json.dumps({**done, name: known}))
        wall = (time.perf_counter() - start) / 60
        print(f"{name}: {known['minutes']:.1f} minutes of the processor, {wall:.1f} in all", flush=True)


def train(method: str, data: Path, steps: int) -> list[str]:
    """``dmp train`` with what all trainings of this experiment share, and with what a negative's training has too."""
    how = ["--steps", str(steps), "--batch-size", str(BATCH), "--lr", f"{LR:g}", "--ema", f"{EMA:g}"]
    saved = ["--save-every", str(max(1, steps // 4)), "--sample-every", "0", "--keep", "1", "--resume"]
    return ["train", "--method", method, "--data", str(data), *how, *saved]


def dmp(command: list[str]) -> None:
    """Run a command of dmp in a process of its own, and print it as it is typed."""
    print(shlex.join(["dmp", *command]), flush=True)
    code = subprocess.run(
        [sys.executable, "-m", "dmp_cli", *command, "--device", "cpu", "--quiet"], check=False
    ).returncode
    if code:  # it has said why
        raise SystemExit(code)


def parameters_of(path: Path) -> int:
    """How many numbers a file of weights holds."""
    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - not a mapping


def _processor_seconds() -> float:
    """Of this process and of those that have ended."""
    kinds = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in kinds)


def main() -> None:
    """Run what is not done, and print the table."""
    from .cifar_table import print_tables

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="zip of CIFAR-10: train/CLASS/NAME.jpg and test/CLASS/NAME.jpg")
    parser.add_argument("-o", "--output", type=Path, default=Path("cifar"))
    parser.add_argument("--epochs", type=int, default=6, help="of the classifier")
    parser.add_argument("--base-steps", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=2000, help="of each negative")
    parser.add_argument("--own-samples", type=int, default=5000)
    parser.add_argument("-n", "--num-images", type=int, default=2000, help="of every set that is scored")
    parser.add_argument("--scales", default="0.5,1,1.5,2")
    given = vars(parser.parse_args())
    torch.set_num_threads(1)
    experiment = Experiment(given.pop("output"), given.pop("archive"), Budget(**given))
    experiment.run()
    print_tables(experiment)


if __name__ == "__main__":
    main()
