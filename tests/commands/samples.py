"""What tests of ``dmp sample`` share: quick options, and the files, pixels and bytes of a folder of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

QUICK = ["--steps", "5", "--device", "cpu", "-q"]


def names(count: int) -> set[str]:
    about = {".lock", "SHA256SUMS", "SHA256SUMS.records", "grid.png", "plan.jsonl", "samples.json"}
    return {f"{index:06d}.png" for index in range(count)} | about


def pixels(folder: Path, count: int) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / f"{i:06d}.png")).astype(int) for i in range(count)])


def bytes_of(folder: Path, count: int) -> list[bytes]:
    return [(folder / f"{index:06d}.png").read_bytes() for index in range(count)]
