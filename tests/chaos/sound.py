"""Undamaged inputs that several kinds begin from: a checkpoint with pictures, a run, and folders of samples of it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..builders import tiny_dit, write_images, write_meta_checkpoint
from .commands import typed
from .damage import DAMAGES

Write = Callable[[random.Random, Path], Any]
SAMPLING = ["-n", 6, "--steps", 2, "--sampler", "ddim", "--batch-size", 3, "-q"]


def make_network(base: Path) -> tuple[list[Any], Path]:
    """A tiny checkpoint and pictures for it: the options that name the network, and the folder of the pictures."""
    weights = write_meta_checkpoint(base / "tiny.pt", tiny_dit())
    return ["--backbone", weights, "--num-classes", 4, "--num-heads", 2], write_images(base / "images")


def make_run(base: Path) -> Path:
    """A run of four steps with two checkpoints, and the patch that two more steps make, as ``sound.safetensors``."""
    network, images = make_network(base)
    how = ["--steps", 4, "--save-every", 2, "--batch-size", 4, "--sample-every", 0, "--ema", 0.9, "--workers", 0]
    typed("train", *network, "--data", images, *how, "--log-every", 1, "-o", base / "run", "-q")
    shutil.copytree(base / "run", base / "further")
    typed("train", "--resume", "--steps", 6, "-o", base / "further", "-q")
    (base / "further" / "patch.safetensors").rename(base / "sound.safetensors")
    shutil.rmtree(base / "further")
    return base / "run"


def make_samples(base: Path) -> tuple[list[Any], dict[str, Path]]:
    """The options that draw six samples, and folders of them: of single files, and of a tar."""
    run = make_run(base)
    options = ["--patch", run / "patch.safetensors", *SAMPLING]
    typed("sample", *options, "-o", base / "single")
    typed("sample", *options, "--tar", "-o", base / "tar")
    return options, {"single": base / "single", "tar": base / "tar"}


def damaging(files: Callable[[random.Random, Path], Path], write: Write) -> dict[str, Write]:
    """Every damage of bytes, done to one of the files of a folder that ``write`` writes."""

    def way(damage: Callable[[bytes, random.Random], bytes]) -> Write:
        def damaged(rng: random.Random, place: Path) -> None:
            write(rng, place)
            path = files(rng, place)
            path.write_bytes(damage(path.read_bytes(), rng))

        return damaged

    return {f"bytes: {name}": way(damage) for name, damage in DAMAGES.items()}


def misplace(path: Path, rng: random.Random) -> None:
    """Put something else in the place of a file: nothing, a folder, a link to nowhere or to itself, or a pipe."""
    path.unlink()
    how = rng.choice(("nothing", "folder", "link", "loop", "large", "pipe"))
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to("nowhere")
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "large":
        with path.open("wb") as file:
            file.truncate(3 << 29)  # a sparse file of zeros
    elif how == "pipe":
        os.mkfifo(path)
