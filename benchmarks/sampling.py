"""The cost of sampling and scoring beyond their networks: whole commands in one process; memory in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from typer.main import get_command

from dmp_cli.backbones.dit import DiT, DiTConfig
from dmp_cli.backbones.dit_export import write_meta
from dmp_cli.cli import app
from dmp_cli.commands.in_process import run_inside
from dmp_cli.evaluation.distances import fit_gaussian, frechet_distance, resampling_counts
from dmp_cli.evaluation.extract import measure
from dmp_cli.evaluation.features import Extractor

from .paired import Row, ratios, seconds_of, summary

# ru_maxrss of a child starts at the value of its parent, but VmHWM is the peak of the process itself, in KiB.
_WITH_PEAK = """
import atexit
atexit.register(lambda: print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))))
from dmp_cli.cli import main
main()
"""
IMAGES, STEPS = 8, 5
MANY, FEW = 50_000, 500
SCORED, MEASURED, BATCH = 10_000, 96, 32


def commands(folder: Path, *, rounds: int) -> Iterator[Row]:
    """``dmp sample`` as a whole, patched and bare, over the bare network alone: a DiT-S/2 on 32x32 pixels."""
    backbone = _small(folder / "s2.pt")
    sizes = ["--num-classes", 10, "--vae", "none"]
    _run_dmp("patch", "--backbone", folder / "s2.pt", *sizes, "-o", folder / "p.safetensors", "-q")
    options = ["-n", IMAGES, "--batch-size", IMAGES, "--sampler", "ddim", "--steps", STEPS, "--device", "cpu"]
    options += ["--guidance", 1.5, "--force", "-q"]
    x, label = torch.randn(2 * IMAGES, *backbone.sample_shape), torch.zeros(2 * IMAGES, dtype=torch.long)

    def bare() -> None:
        _run_dmp("sample", "--patch", folder / "p.safetensors", "--no-patch", *options, "-o", folder / "bare")

    def patched() -> None:
        _run_dmp("sample", "--patch", folder / "p.safetensors", *options, "-o", folder / "patched")

    def calls() -> None:
        with torch.inference_mode():
            for step in range(STEPS):
                backbone(x, torch.full((2 * IMAGES,), step), label)

    found = ratios({"bare": bare, "patched": patched, "calls": calls}, base="bare", rounds=rounds)
    yield "dit-s2: dmp sample, patched / bare", summary(found["patched"]), "1.05 (noise)"
    alone = [whole / calls for whole, calls in zip(found["patched"], found["calls"], strict=True)]
    yield "dit-s2: dmp sample, patched / the bare calls alone", summary(alone), "1.10"


def memory(folder: Path) -> Row:
    """Peak memory of a process that draws many digits and writes one .npz, over that of one that draws few."""
    few, many = (_peak(folder / str(count), count) for count in (FEW, MANY))
    result = f"{many / few:.3f} ({many / 2**20:.0f} of {few / 2**20:.0f} MiB)"
    return f"resident memory, -n {MANY} --npz / -n {FEW}", result, "1.1"


def scoring(folder: Path, *, rounds: int) -> Row:
    """Time of scoring 10,000 images over the time of the network alone: Inception's size, with random weights.

    Files to features is measured on a few images. The scores of 10,000 images with ten resamples do not depend on the
    network; they are measured once on random features, and their share of the network's time is added.
    """
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, aux_logits=False, init_weights=False).eval()
    network.fc = torch.nn.Identity()
    (folder / "real").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (MEASURED, 256, 256, 3), np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "real" / f"{index:06d}.png")
    extractor = Extractor("random", 2048, "none", _resize, network)
    batch = torch.rand(BATCH, 3, 299, 299)

    def alone() -> None:
        with torch.inference_mode():
            for _ in range(MEASURED // BATCH):
                network(batch)

    works = {"alone": alone, "whole": lambda: measure(folder / "real", extractor, batch_size=BATCH)}
    # wall time, as other threads decode files while the network runs
    found = ratios(works, base="alone", rounds=rounds, clock=time.perf_counter)
    share = seconds_of(_score, time.perf_counter) / (seconds_of(alone, time.perf_counter) / MEASURED * SCORED)
    what = f"scoring {SCORED:,} images of 256 px / the feature network alone"
    return what, summary([ratio + share for ratio in found["whole"]]), "1.2"


def _score() -> None:
    """Compute FID of 10,000 random features, with ten resamples."""
    features = np.random.default_rng(0).normal(size=(SCORED, 2048)).astype(np.float32)
    reference = fit_gaussian(features)
    for row in [None, *resampling_counts(SCORED, resamples=10, seed=0)]:
        frechet_distance(fit_gaussian(features, counts=row), reference=reference)


def _resize(image: np.ndarray) -> np.ndarray:
    from cleanfid.resize import build_resizer

    return np.ascontiguousarray(build_resizer("clean")(image).transpose(2, 0, 1))


def _small(path: Path) -> DiT:
    """A DiT-S/2 on 32x32 pixels with random weights, also written to ``path``."""
    sizes = {"hidden_size": 384, "depth": 12, "num_heads": 6, "mlp_size": 1536, "patch_size": 2}
    backbone = DiT(DiTConfig(input_size=32, in_channels=3, num_classes=10, null_row=True, learn_sigma=False, **sizes))
    backbone.initialise(seed=0)
    write_meta(path, backbone)
    return backbone.eval()


def _run_dmp(*words: object) -> None:
    """Run a ``dmp`` command in this process."""
    run_inside([str(word) for word in words], get_command(app))


def _peak(output: Path, count: int) -> int:
    """Peak memory in bytes of a process that draws ``count`` digits."""
    options = ["--backbone", "digits", "--sampler", "ddim", "--steps", "2", "--batch-size", "500", "--npz", "-q"]
    command = [sys.executable, "-c", _WITH_PEAK, "sample", *options, "-n", str(count), "-o", str(output)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-2]) * 1024


def table(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of the table, each as soon as it is measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from commands(folder, rounds=3 if quick else 5)
        yield scoring(folder, rounds=1 if quick else 3)
        if sys.platform == "linux":  # the only system with /proc
            yield memory(folder)
