"""Trains 300 steps under random ``kill -9`` and compares the patch with that of an undisturbed run, byte for byte.

python -m tests.training.chaos [KILLS [SEED]]
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path

import torch

from dmp_cli.cli import app
from tests.builders import tiny_dit, write_images, write_meta_checkpoint


def chaos(folder: Path, *, kills: int, seed: int) -> tuple[bool, int]:
    """Whether a killed run wrote the same patch as an undisturbed one, and how many kills came before its end."""
    weights, data = write_meta_checkpoint(folder / "tiny.pt", tiny_dit()), write_images(folder / "images")
    common = ["train", "--backbone", str(weights), "--num-classes", "4", "--num-heads", "2", "--data", str(data), "-q"]
    common += ["--steps", "300", "--batch-size", "4", "--save-every", "20", "--sample-every", "0", "--latent-store"]
    start, draw = multiprocessing.get_context("fork"), random.Random(seed)

    def begin(out: str) -> multiprocessing.process.BaseProcess:
        process = start.Process(target=app, args=([*common, "--resume", "-o", str(folder / out)],), daemon=True)
        process.start()
        return process

    begun = time.monotonic()
    begin("straight").join()
    undisturbed = time.monotonic() - begun
    struck = 0
    for _ in range(kills):
        process = begin("killed")
        time.sleep(draw.uniform(0, undisturbed / 8))
        struck += process.is_alive()
        process.kill()
        process.join()
    begin("killed").join()
    return len({(folder / out / "patch.safetensors").read_bytes() for out in ("straight", "killed")}) == 1, struck


if __name__ == "__main__":
    torch.set_num_threads(1)
    kills, seed = [int(word) for word in [*sys.argv[1:], *("20", "0")[len(sys.argv) - 1 :]]]
    with tempfile.TemporaryDirectory() as folder:
        same, struck = chaos(Path(folder), kills=kills, seed=seed)
    print(f"{struck} kills of a running process: {'the same bytes' if same else 'OTHER BYTES'}")
    sys.exit(not same)
