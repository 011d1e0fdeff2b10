"""CIFAR-10 at 16x16 pixels: class folders of PNGs, and the same pictures as tensors."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE = 16
PARTS = {"train": 50_000, "test": 10_000}  # parts of CIFAR-10 -> pictures, as many of each class


def write_pictures(archive: Path, folder: Path) -> None:
    """Write every ``PART/CLASS/NAME.jpg`` of a zip as ``folder/PART/CLASS/NAME.png``, shrunk by a box filter.

    Pictures that are there are kept. Raises SystemExit if the zip does not hold both parts, balanced over the classes.
    """
    with zipfile.ZipFile(archive) as pictures:
        names = sorted(name for name in pictures.namelist() if name.endswith(".jpg"))
        _check(archive, names)
        for name in names:
            path = (folder / name).with_suffix(".png")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_shrunk(pictures.read(name), path, side=SIDE)


def read_pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures of class folders, uint8 (n, 3, 16, 16), and their classes, int64 (n,), in the order of the names."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    paths = [(path, label) for label, inner in enumerate(classes) for path in sorted(inner.glob("*.png"))]
    images = np.stack([np.asarray(Image.open(path)) for path, _ in paths])  # (n, 16, 16, 3)
    return torch.from_numpy(images).movedim(3, 1).contiguous(), torch.tensor([label for _, label in paths])


def _check(archive: Path, names: list[str]) -> None:
    for part, expected in PARTS.items():
        inner = [name.split("/")[1] for name in names if name.startswith(f"{part}/")]
        counts = {inner.count(each) for each in set(inner)}
        if len(inner) != expected or counts != {expected // 10}:
            raise SystemExit(f"{archive}: {part}/ does not hold {expected:,} JPEGs in ten class folders of one size")


def write_shrunk(data: bytes, path: Path, *, side: int) -> None:
    """Write a picture as PNG, shrunk to ``side`` pixels by a box filter."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BOX)
    partial = path.with_suffix(".part")
    image.save(partial, format="PNG")
    partial.replace(path)
