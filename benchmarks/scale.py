"""What every process does for the whole global batch, or for all images: its random numbers and the order of the data.

``python -m benchmarks.scale``: one thread, wall time, DiT-L/2's latents, 128 images of each process. docs/scale.md
computes with what it prints.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from dmp_cli.config import ScheduleConfig, TrainConfig
from dmp_cli.data.shuffling import Order
from dmp_cli.diffusion import Schedule
from dmp_cli.training.noise import NoiseSource

OWN, LATENT = 128, (4, 32, 32)  # images of a process in a step, shape of a sample
PROCESSES, IMAGES, ROUNDS = (1, 8, 64, 1024), 10_000_000, 5


def draws(processes: int) -> Callable[[], object]:
    """Draw the random numbers of a step, as the last of so many processes does."""
    batch = processes * OWN
    source = NoiseSource(
        config=TrainConfig(data=Path("unused"), batch_size=batch),
        places=range(batch - OWN, batch),
        sample_shape=LATENT,
        process=Schedule(ScheduleConfig()),
        has_posterior=True,
        num_prompts=0,
        drops_condition=True,
    )
    return lambda: source.draw(1)


def order(shards: bool) -> Callable[[], object]:
    """Put all images in the order of an epoch, and find a process' images of its first step."""
    import numpy as np

    spans = np.arange(0, IMAGES + 1, IMAGES // 1000) if shards else None
    return lambda: Order(IMAGES, batch_size=OWN, seed=0, spans=spans).places(0)


def seconds(work: Callable[[], object]) -> float:
    """The median of a few calls."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def main() -> None:
    for processes in PROCESSES:
        milliseconds = 1000 * seconds(draws(processes))
        print(f"random numbers of a step, {processes:,} processes of {OWN} images: {milliseconds:.1f} ms")
    for shards, name in ((False, "files of their own"), (True, "1,000 shards")):
        print(f"order of an epoch of {IMAGES:,} images in {name}: {seconds(order(shards)):.2f} s")


if __name__ == "__main__":
    main()
