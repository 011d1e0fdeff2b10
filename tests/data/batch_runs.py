"""A folder of small images with some bad ones among them, and the batches that are read from it."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from dmp_cli.data.batches import Batch, read_batches
from dmp_cli.data.readers import LiveReader
from dmp_cli.data.source import ImageSource

from .image_files import SIZE, picture


def make(folder: Path, count: int = 7, *, bad: tuple[int, ...] = ()) -> Path:
    """``count`` images, the first three of class a; those in ``bad`` are no images."""
    for index in range(count):
        file = folder / ("a" if index < 3 else "b") / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(index)).save(file)
        if index in bad:
            file.write_bytes(b"no image")
    return folder


def run(source: ImageSource, *, stop: int, start: int = 0, workers: int = 0, **options: object) -> list[Batch]:
    reader = LiveReader(source, image_size=SIZE, channels=options.pop("channels", 3))
    arguments = {"batch_size": 3, "seed": 5, "flip": True, "max_bad": 100, **options}
    return list(read_batches(source, reader, start_step=start, stop_step=stop, workers=workers, **arguments))


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    assert [batch.step for batch in some] == [batch.step for batch in others]
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.indices, other.indices)
